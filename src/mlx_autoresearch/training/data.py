"""The prepared data of a run: opened by its configuration, and compared with what the run was started with."""

from __future__ import annotations

from typing import Any, Literal

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.data.prepared import PreparedData, open_prepared
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.machine.paths import cache_dir

from .run import Run


def find_data(config: Config) -> PreparedData:
    """The prepared data of a configuration, not verified. Raises UserError when it has not been prepared."""
    return open_prepared(config.data.source, vocab_size=config.data.vocab_size, cache_dir=cache_dir())


def open_data(config: Config) -> PreparedData:
    """The prepared data of a configuration. Raises UserError when it has not been prepared, or is damaged."""
    data = find_data(config)
    data.verify()  # a wrong token would be trained on or scored, or, out of the vocabulary, crash MLX
    return data


def data_info(data: PreparedData) -> dict[str, Any]:
    """What a run's folder records of its data: the prepared folder, and the SHA-256 of each split's tokens."""
    hashes = {f"{split}_sha256": data.split(split).sha256 for split in ("train", "val")}
    return {"folder": str(data.path)} | hashes


def check_same_data(run: Run, data: PreparedData, *splits: Literal["train", "val"]) -> None:
    """Raise UserError when the tokens of `splits` are not those the run was started with."""
    recorded = run.info()["data"]
    for split in splits:
        name = {"train": "training", "val": "validation"}[split]
        then, now = recorded.get(f"{split}_sha256"), data.split(split).sha256
        if then != now:
            raise UserError(
                f"the {name} data has changed since {run.path} was started (SHA-256 {str(then)[:12]} then, "
                f"{now[:12]} now): results would not be comparable; restore the text or start anew"
            )

"""A made-up corpus, and settings of a model that trains on it in half a second."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any


def make_corpus(folder: Path) -> Path:
    """40 files of 200 made-up words each, always the same, in `folder`."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 8))) for _ in range(300)]
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(40):
        (folder / f"{i}.txt").write_text(" ".join(rng.choices(words, k=200)) + ".\n")
    return folder


def tiny_settings(corpus: Path, **train: Any) -> dict[str, Any]:
    """A configuration as nested values; `train` wins over its section of that name."""
    return {
        "data": {"source": {"kind": "text", "paths": [str(corpus)], "val_fraction": 0.2}, "vocab_size": 300},
        "model": {"n_layer": 2, "n_head": 2, "n_kv_head": 1, "n_embd": 32, "sequence_len": 32},
        "train": {"max_steps": 6, "total_batch_size": 256, "device_batch_size": 4} | train,
        "evaluate": {"eval_tokens": 512, "sequence_len": 32},
    }

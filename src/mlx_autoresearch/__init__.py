"""GPT pretraining laboratory for one machine, on MLX."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlx_autoresearch.machine import blas

if TYPE_CHECKING:  # the names of _EXPORTS, for type checkers and editors
    from mlx_autoresearch.config.gpt import GPTConfig as GPTConfig
    from mlx_autoresearch.config.load import load_config as load_config
    from mlx_autoresearch.config.settings import Config as Config
    from mlx_autoresearch.data.packing import PackedBatches as PackedBatches
    from mlx_autoresearch.data.prepare import prepare as prepare
    from mlx_autoresearch.data.prepared import open_prepared as open_prepared
    from mlx_autoresearch.data.tokenizer import Tokenizer as Tokenizer
    from mlx_autoresearch.errors import RunFailed as RunFailed
    from mlx_autoresearch.errors import UserError as UserError
    from mlx_autoresearch.machine.paths import cache_dir as cache_dir
    from mlx_autoresearch.metric.bits import evaluate_bpb as evaluate_bpb
    from mlx_autoresearch.recipe.model import GPT as GPT
    from mlx_autoresearch.recipe.optimizer import AdamWGroup as AdamWGroup
    from mlx_autoresearch.recipe.optimizer import MuonAdamW as MuonAdamW
    from mlx_autoresearch.recipe.optimizer import MuonGroup as MuonGroup
    from mlx_autoresearch.training.run import Run as Run
    from mlx_autoresearch.training.trainer import evaluate_run as evaluate_run
    from mlx_autoresearch.training.trainer import resume as resume
    from mlx_autoresearch.training.trainer import train as train

__version__ = "0.1.0"

blas.load()  # before anything imports mlx.core

# Public name -> module that defines it, imported at first use. No name may be a submodule's: importing that would win.
_EXPORTS = {
    "AdamWGroup": "recipe.optimizer",
    "Config": "config.settings",
    "GPT": "recipe.model",
    "GPTConfig": "config.gpt",
    "MuonAdamW": "recipe.optimizer",
    "MuonGroup": "recipe.optimizer",
    "PackedBatches": "data.packing",
    "Run": "training.run",
    "RunFailed": "errors",
    "Tokenizer": "data.tokenizer",
    "UserError": "errors",
    "cache_dir": "machine.paths",
    "evaluate_bpb": "metric.bits",
    "evaluate_run": "training.trainer",
    "load_config": "config.load",
    "open_prepared": "data.prepared",
    "prepare": "data.prepare",
    "resume": "training.trainer",
    "train": "training.trainer",
}

if not TYPE_CHECKING:  # a type checker that saw __getattr__ would take any name for a public one
    __all__ = list(_EXPORTS)

    def __getattr__(name: str) -> Any:
        if name not in _EXPORTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_EXPORTS})

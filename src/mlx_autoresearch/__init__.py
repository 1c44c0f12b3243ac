"""GPT pretraining laboratory for one machine, on MLX."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import blas, malloc

if TYPE_CHECKING:  # the names of _EXPORTS, for type checkers and editors
    from .config import Config as Config
    from .config import load_config as load_config
    from .data.packing import PackedBatches as PackedBatches
    from .data.prepare import open_prepared as open_prepared
    from .data.prepare import prepare as prepare
    from .data.tokenizer import Tokenizer as Tokenizer
    from .errors import RunFailed as RunFailed
    from .errors import UserError as UserError
    from .evaluate import evaluate_bpb as evaluate_bpb
    from .gpt_config import GPTConfig as GPTConfig
    from .model import GPT as GPT
    from .optimizer import AdamWGroup as AdamWGroup
    from .optimizer import MuonAdamW as MuonAdamW
    from .optimizer import MuonGroup as MuonGroup
    from .paths import cache_dir as cache_dir
    from .run import Run as Run
    from .trainer import evaluate_run as evaluate_run
    from .trainer import resume as resume
    from .trainer import train as train

__version__ = "0.1.0"

blas.load()  # before anything imports mlx.core
malloc.keep_freed_memory()

# Public name -> module that defines it, imported at first use. No name may be a submodule's: importing that would win.
_EXPORTS = {
    "AdamWGroup": "optimizer",
    "Config": "config",
    "GPT": "model",
    "GPTConfig": "gpt_config",
    "MuonAdamW": "optimizer",
    "MuonGroup": "optimizer",
    "PackedBatches": "data.packing",
    "Run": "run",
    "RunFailed": "errors",
    "Tokenizer": "data.tokenizer",
    "UserError": "errors",
    "cache_dir": "paths",
    "evaluate_bpb": "evaluate",
    "evaluate_run": "trainer",
    "load_config": "config",
    "open_prepared": "data.prepare",
    "prepare": "data.prepare",
    "resume": "trainer",
    "train": "trainer",
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

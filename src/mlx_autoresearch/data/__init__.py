"""Text in, batches out: sources, tokenizer, shards on disk, packing, prefetching.

Names are imported when first used. The function that makes data is `mlx_autoresearch.data.prepare.prepare`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlx_autoresearch.data.packing import Batch, PackedBatches
    from mlx_autoresearch.data.prefetch import Prefetcher
    from mlx_autoresearch.data.prepare import PreparedData, open_prepared
    from mlx_autoresearch.data.shards import TokenShards
    from mlx_autoresearch.data.tokenizer import Tokenizer

__all__ = ["Batch", "PackedBatches", "Prefetcher", "PreparedData", "TokenShards", "Tokenizer", "open_prepared"]

_HOMES = {
    "Batch": "packing",
    "PackedBatches": "packing",
    "Prefetcher": "prefetch",
    "PreparedData": "prepare",
    "TokenShards": "shards",
    "Tokenizer": "tokenizer",
    "open_prepared": "prepare",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

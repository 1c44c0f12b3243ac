"""The resolved shape of a GPT: plain numbers, no files, no MLX."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

WindowPattern = str | list[str | int]
MLPKind = Literal["relu2", "swiglu", "gelu"]


@dataclass(frozen=True)
class GPTConfig:
    """Shape and switches of a `GPT`; defaults are the reference's switches.

    sequence_len: longest training row T in tokens. vocab_size: V. n_embd: width of the residual stream.
    window_pattern: one entry per layer, repeated over the layers: "S" sees half of sequence_len, "L" all of it,
    a number w sees keys i-w ... i. The last layer always sees everything. A string such as "SSSL", or a list.

    Raises ValueError, naming the field, what was expected and what came.
    """

    sequence_len: int = 2048
    vocab_size: int = 32768
    n_layer: int = 12
    n_head: int = 6
    n_kv_head: int = 6
    n_embd: int = 768
    window_pattern: WindowPattern = "SSSL"
    mlp: MLPKind = "relu2"
    softcap: float | None = 15.0
    embedding_norm: bool = True
    value_embeds: bool = True

    def __post_init__(self) -> None:
        for name in ("sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd"):
            value = getattr(self, name)
            if not _is_int(value) or value < 1:
                raise ValueError(f"[GPTConfig] {name} must be a positive integer, got {value!r}")
        if self.n_embd % self.n_head:
            raise ValueError(f"[GPTConfig] n_embd must be divisible by n_head={self.n_head}, got {self.n_embd}")
        if self.head_dim % 2:
            raise ValueError(f"[GPTConfig] head_dim = n_embd / n_head must be even for RoPE, got {self.head_dim}")
        if self.n_head % self.n_kv_head:
            raise ValueError(f"[GPTConfig] n_kv_head must divide n_head={self.n_head}, got {self.n_kv_head}")
        if self.mlp not in get_args(MLPKind):
            raise ValueError(f"[GPTConfig] mlp must be relu2, swiglu or gelu, got {self.mlp!r}")
        if self.softcap is not None and not (isinstance(self.softcap, int | float) and 0 < self.softcap < math.inf):
            raise ValueError(f"[GPTConfig] softcap must be positive or null, got {self.softcap!r}")
        _ = self.window_sizes

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head

    @property
    def window_sizes(self) -> list[int]:
        """Per layer the window w: a query at position i sees keys i-w ... i."""
        if not isinstance(self.window_pattern, str | list) or not self.window_pattern:
            raise ValueError(
                "[GPTConfig] window_pattern must be letters S and L, or a list of them and of numbers of keys, "
                f"got {self.window_pattern!r}"
            )
        letters = {"L": self.sequence_len, "S": self.sequence_len // 2}
        sizes = []
        for entry in self.window_pattern:
            size = letters.get(entry.upper()) if isinstance(entry, str) else entry
            if size is None or not _is_int(size):
                raise ValueError(f"[GPTConfig] window_pattern takes S, L or a number of keys, got {entry!r}")
            if not 0 <= size <= self.sequence_len:
                raise ValueError(
                    f"[GPTConfig] window_pattern takes windows from 0 to sequence_len={self.sequence_len}, got {size}"
                )
            sizes.append(size)
        windows = [sizes[i % len(sizes)] for i in range(self.n_layer)]
        windows[-1] = self.sequence_len
        return windows

    def has_value_embedding(self, layer: int) -> bool:
        """Alternating layers, the last one always included."""
        return self.value_embeds and layer % 2 == (self.n_layer - 1) % 2

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, for JSON."""
        return asdict(self)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

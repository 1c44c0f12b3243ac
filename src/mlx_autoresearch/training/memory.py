"""An estimate of how much memory a training needs, from its configuration alone; benchmarks/memory.py measures it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mlx_autoresearch.config.gpt import GPTConfig
from mlx_autoresearch.config.settings import Config

Backend = Literal["metal", "cuda"] | None  # what computes; None: a CPU

CHUNK_ELEMENTS = {"cpu": 2**23, "gpu": 2**27}  # logits that the recipe computes at once
ATTENTION_BLOCK = 128  # queries that the recipe's attention takes at once on a CPU


@dataclass(frozen=True)
class _Weights:
    """How many times each quantity is held at the peak; fitted to the runs in benchmarks/RESULTS.md.

    unembedding: times its gradient, for every chunk of logits. muon, adamw: times the parameters of each while they are
    updated. gradients: whether all of them are there in the backward pass too. queued: a GPU's queue holds arrays
    longer than the graph needs them, so many times the activations and at most so many bytes (seen with CUDA, not
    measured with Metal).
    """

    activations: float
    logits: float
    unembedding: float
    gelu: float
    muon: float
    adamw: float = 0.0
    gradients: float = 1.0
    queued: float = 0.0
    most_queued: int = 0


_CPU = _Weights(activations=1.95, logits=6.0, unembedding=1.7, gelu=4.3, muon=4.9, adamw=2.8, gradients=0.0)
_KERNELS = _Weights(activations=2.2, logits=1.0, unembedding=0.0, gelu=4.0, muon=9.0, queued=2.0, most_queued=9 * 2**30)
_COMPOSED = _Weights(
    activations=3.1, logits=5.0, unembedding=0.0, gelu=5.0, muon=9.0, queued=2.0, most_queued=5 * 2**30
)


def memory_needed(config: Config, parameters: dict[str, int], *, itemsize: int, backend: Backend, kernels: bool) -> int:
    """Bytes that MLX holds at the peak of a training step, for the recipe as it is shipped.

    parameters: counts by role, as `GPT.parameter_counts` gives them. itemsize: bytes of an activation. kernels: whether
    most operations run as our kernels on a GPU. The peak is in the backward pass or, for few rows of a large model, in
    the optimizer.
    """
    given = quantities(config, parameters, itemsize=itemsize, backend=backend, kernels=kernels)
    weights = _CPU if backend is None else _KERNELS if kernels else _COMPOSED
    names = ("activations", "logits", "unembedding", "gelu", "gradients")
    backward = given["scores"] + sum(getattr(weights, name) * given[name] for name in names)
    backward += min(weights.queued * given["activations"], weights.most_queued)
    update = given["gradients"] + weights.muon * given["matrices"] + weights.adamw * given["others"]
    return int(given["state"] + max(backward, update))


def quantities(
    config: Config, parameters: dict[str, int], *, itemsize: int, backend: Backend, kernels: bool
) -> dict[str, float]:
    """Bytes of the arrays, or groups of arrays, that the estimate is a weighted sum of."""
    shape, tokens = config.gpt_config(), config.train.device_batch_size * config.model.sequence_len
    C, V, total, matrices = shape.n_embd, shape.vocab_size, parameters["total"], parameters["transformer_matrices"]
    chunk = tokens_at_once(tokens, V, gpu=backend is not None)
    width = 2 * C + 2 * shape.n_kv_head * shape.head_dim + _mlp_width(shape)
    return {
        "state": 4 * total + 4 * matrices + 8 * (total - matrices),  # masters and moments
        "gradients": 4 * total,
        "matrices": 4 * matrices,
        "others": 4 * (total - matrices),
        "activations": tokens * shape.n_layer * width * itemsize,
        "gelu": tokens * shape.n_layer * 4 * C * itemsize if shape.mlp == "gelu" else 0,
        "scores": config.train.device_batch_size * shape.n_head * _kept_scores(shape, itemsize, backend, kernels),
        "logits": chunk * V * (4 if backend is None else itemsize),
        "unembedding": -(-tokens // chunk) * V * C * 4,
    }


def _kept_scores(shape: GPTConfig, itemsize: int, backend: Backend, kernels: bool) -> int:
    """Bytes a row and head of the softmax weights that attention keeps for its gradient, in all layers.

    On a CPU they are float32. MLX on Metal keeps them too when it trains, and computes their gradient beside them: as
    its source says, not measured. On CUDA, and in our kernel, none are kept.
    """
    T = shape.sequence_len
    if backend is None:
        return 4 * sum(_blocked_pairs(T, window) for window in shape.window_sizes)
    if backend == "cuda" or kernels:
        return 0
    pairs = [T * (_banded_keys(window) if is_banded(T, window) else T) for window in shape.window_sizes]
    return itemsize * (sum(pairs) + 3 * max(pairs))


def _blocked_pairs(T: int, window: int) -> int:
    """Queries times keys of the recipe's attention on a CPU, which takes whole blocks of both."""
    firsts = range(0, T, ATTENTION_BLOCK)
    blocks = [(min(T, first + ATTENTION_BLOCK), max(0, first - window) // ATTENTION_BLOCK) for first in firsts]
    return sum(
        (end - first) * (end - tile * ATTENTION_BLOCK) for first, (end, tile) in zip(firsts, blocks, strict=True)
    )


def is_banded(sequence_len: int, window: int) -> bool:
    """Whether the recipe's attention leaves out, on a GPU, most of the keys that no query sees."""
    return sequence_len > 1024 and window <= sequence_len // 2


def _banded_keys(window: int) -> int:
    """Keys that it then takes for every query."""
    block = max(64, -(-window // 2))
    return (-(-window // block) + 1) * block


def tokens_at_once(tokens: int, vocab_size: int, *, gpu: bool) -> int:
    """Tokens whose logits are computed at once."""
    return min(tokens, max(1, CHUNK_ELEMENTS["gpu" if gpu else "cpu"] // vocab_size))


def mlp_hidden(shape: GPTConfig) -> int:
    """Width of the MLP's hidden layer."""
    return -(-8 * shape.n_embd // 3 // 32) * 32 if shape.mlp == "swiglu" else 4 * shape.n_embd


def _mlp_width(shape: GPTConfig) -> int:
    """Elements a token between the MLP's matrices."""
    return (4 if shape.mlp == "swiglu" else 2) * mlp_hidden(shape)

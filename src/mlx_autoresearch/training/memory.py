"""An estimate of how much memory a training needs, from its configuration alone.

Only benchmarks/memory.py uses it: `training.setup.check_memory` still refuses by a bound of its own, a fifth of this.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlx_autoresearch.config.gpt import GPTConfig
from mlx_autoresearch.config.settings import Config

_BLOCK = 128  # queries that composed attention takes at once on a CPU
# A GPU's queue holds arrays a little longer than the graph needs them: so many times the activations, and at most so
# many bytes (seen with CUDA; with Metal it was not measured).
_QUEUED, _MOST_QUEUED = 3.0, 9 * 2**30


@dataclass(frozen=True)
class _Weights:
    """How many times each quantity is held at the peak; fitted to the runs in benchmarks/RESULTS.md."""

    activations: float
    scores: float = 0.0
    logits: float = 0.0
    unembedding: float = 0.0


_CPU = _Weights(activations=2.1, scores=0.4, logits=4.5, unembedding=2.35)
_KERNELS = _Weights(activations=2.2)
_COMPOSED = _Weights(activations=2.8)


def memory_needed(config: Config, parameters: dict[str, int], *, itemsize: int, gpu: bool, kernels: bool) -> int:
    """Bytes that MLX holds at the peak of a training step, for the recipe as it is shipped.

    parameters: counts by role, as `GPT.parameter_counts` gives them. itemsize: bytes of an activation. gpu: whether MLX
    computes on one. kernels: whether most operations run as our kernels there. A sum of what grows with the model and
    of what grows with a micro-batch, each as often as measured peaks say (benchmarks/memory.py).
    """
    given = quantities(config, parameters, itemsize=itemsize, gpu=gpu)
    weights = _CPU if not gpu else _KERNELS if kernels else _COMPOSED
    queued = min(_QUEUED * given["activations"], _MOST_QUEUED) if gpu else 0.0
    held = sum(getattr(weights, name) * given[name] for name in ("activations", "scores", "logits", "unembedding"))
    return int(given["state"] + given["gradients"] + held + queued)


def quantities(config: Config, parameters: dict[str, int], *, itemsize: int, gpu: bool) -> dict[str, float]:
    """Bytes of the arrays, or groups of arrays, that the estimate is a weighted sum of."""
    shape, rows = config.gpt_config(), config.train.device_batch_size
    T, C, V = shape.sequence_len, shape.n_embd, shape.vocab_size
    tokens, matrices = rows * T, parameters["transformer_matrices"]
    chunk = min(tokens, max(1, (2**27 if gpu else 2**23) // V))  # tokens whose logits are computed at once
    width = 2 * C + 2 * shape.n_kv_head * shape.head_dim + _mlp_width(shape)
    return {
        "state": 4 * parameters["total"] + 4 * matrices + 8 * (parameters["total"] - matrices),  # masters and moments
        "gradients": 4 * parameters["total"],
        "activations": tokens * shape.n_layer * width * itemsize,
        "scores": 4 * rows * shape.n_head * sum(_scores(T, window) for window in shape.window_sizes),
        "logits": chunk * V * (itemsize if gpu else 4),
        "unembedding": -(-tokens // chunk) * V * C * 4,
    }


def _mlp_width(shape: GPTConfig) -> int:
    """Elements a token between the MLP's matrices."""
    if shape.mlp == "swiglu":
        return 4 * (-(-8 * shape.n_embd // 3 // 32) * 32)
    return 8 * shape.n_embd


def _scores(T: int, window: int) -> int:
    """Elements of the blocks of scores that composed attention keeps on a CPU, for one head."""
    starts = range(0, T, _BLOCK)
    blocks = [(start, min(start + _BLOCK, T), max(0, start - window) // _BLOCK * _BLOCK) for start in starts]
    return sum((end - start) * (end - first_key) for start, end, first_key in blocks)

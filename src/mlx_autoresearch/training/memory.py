"""An estimate of how much memory a training needs, from its configuration alone; benchmarks/memory.py measures it."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_autoresearch.config.gpt import GPTConfig
from mlx_autoresearch.config.settings import Config

CHUNK_ELEMENTS = {"cpu": 2**23, "gpu": 2**27}  # logits that the recipe computes at once


@dataclass(frozen=True)
class _Weights:
    """How many times each quantity is held at the peak; fitted to the runs in benchmarks/RESULTS.md.

    muon: times the matrices, while they are orthogonalised. queued: a GPU's queue holds arrays longer than the graph
    needs them, so many times the activations and at most so many bytes (seen with CUDA, not measured with Metal).
    """

    activations: float
    logits: float
    unembedding: float
    gelu: float
    muon: float
    queued: float = 0.0
    most_queued: int = 0


_CPU = _Weights(activations=2.2, logits=3.0, unembedding=3.5, gelu=5.5, muon=7.8)
_KERNELS = _Weights(activations=2.2, logits=1.0, unembedding=0.0, gelu=4.0, muon=9.0, queued=2.0, most_queued=9 * 2**30)
_COMPOSED = _Weights(
    activations=3.1, logits=5.0, unembedding=0.0, gelu=5.0, muon=9.0, queued=2.0, most_queued=5 * 2**30
)


def memory_needed(config: Config, parameters: dict[str, int], *, itemsize: int, gpu: bool, kernels: bool) -> int:
    """Bytes that MLX holds at the peak of a training step, for the recipe as it is shipped.

    parameters: counts by role, as `GPT.parameter_counts` gives them. itemsize: bytes of an activation. gpu: whether MLX
    computes on one. kernels: whether most operations run as our kernels there. The peak is in the backward pass or, for
    few rows of a large model, in the optimizer.
    """
    given = quantities(config, parameters, itemsize=itemsize, gpu=gpu)
    weights = _CPU if not gpu else _KERNELS if kernels else _COMPOSED
    names = ("activations", "logits", "unembedding", "gelu")
    backward = sum(getattr(weights, name) * given[name] for name in names)
    backward += min(weights.queued * given["activations"], weights.most_queued)
    return int(given["state"] + given["gradients"] + max(backward, weights.muon * given["matrices"]))


def quantities(config: Config, parameters: dict[str, int], *, itemsize: int, gpu: bool) -> dict[str, float]:
    """Bytes of the arrays, or groups of arrays, that the estimate is a weighted sum of."""
    shape, tokens = config.gpt_config(), config.train.device_batch_size * config.model.sequence_len
    C, V, total, matrices = shape.n_embd, shape.vocab_size, parameters["total"], parameters["transformer_matrices"]
    chunk = tokens_at_once(tokens, V, gpu=gpu)
    width = 2 * C + 2 * shape.n_kv_head * shape.head_dim + _mlp_width(shape)
    return {
        "state": 4 * total + 4 * matrices + 8 * (total - matrices),  # masters and moments
        "gradients": 4 * total,
        "matrices": 4 * matrices,
        "activations": tokens * shape.n_layer * width * itemsize,
        "gelu": tokens * shape.n_layer * 4 * C * itemsize if shape.mlp == "gelu" else 0,
        "logits": chunk * V * (itemsize if gpu else 4),
        "unembedding": -(-tokens // chunk) * V * C * 4,
    }


def tokens_at_once(tokens: int, vocab_size: int, *, gpu: bool) -> int:
    """Tokens whose logits are computed at once."""
    return min(tokens, max(1, CHUNK_ELEMENTS["gpu" if gpu else "cpu"] // vocab_size))


def mlp_hidden(shape: GPTConfig) -> int:
    """Width of the MLP's hidden layer."""
    return -(-8 * shape.n_embd // 3 // 32) * 32 if shape.mlp == "swiglu" else 4 * shape.n_embd


def _mlp_width(shape: GPTConfig) -> int:
    """Elements a token between the MLP's matrices."""
    return (4 if shape.mlp == "swiglu" else 2) * mlp_hidden(shape)

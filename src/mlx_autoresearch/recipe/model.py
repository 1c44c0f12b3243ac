"""GPT: the reference's model (karpathy/autoresearch, train.py) as an ordinary `mlx.nn.Module`.

Parameters are float32 masters under the reference's own names; each is cast to the compute dtype where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlx_autoresearch.config.gpt import GPTConfig
from mlx_autoresearch.kernels.operation import Implementation, measuring
from mlx_autoresearch.machine.device import is_gpu
from mlx_autoresearch.machine.resident import resident

from . import fastmath
from .attention import attention
from .embedding import embedding
from .loss import linear_cross_entropy, softcapped
from .norm import mixed_norm, norm, residual_norm
from .roles import role_of
from .rotary import norm_rope
from .settings import Settings

_GATE_CHANNELS = 32


class Linear(nn.Module):
    """y = x Wᵀ with a float32 master W of shape (out, in), cast to x's dtype."""

    def __init__(self, in_dims: int, out_dims: int):
        super().__init__()
        self.weight = mx.zeros((out_dims, in_dims))

    def __call__(self, x: mx.array) -> mx.array:
        return x @ self.weight.astype(x.dtype).T


class Embedding(nn.Module):
    """Rows of a float32 master of shape (vocab, dims)."""

    def __init__(self, vocab_size: int, dims: int):
        super().__init__()
        self.weight = mx.zeros((vocab_size, dims))

    def __call__(self, idx: mx.array, dtype: mx.Dtype, kernels: Implementation) -> mx.array:
        return embedding(idx, self.weight, dtype, implementation=kernels)


class CausalSelfAttention(nn.Module):
    """(B, T, C) -> (B, T, C), over the layer's window.

    ve: value embeddings (B, T, H_kv * D) that a gate adds to the values; None in layers without them.
    """

    def __init__(self, config: GPTConfig, layer: int):
        super().__init__()
        self.n_head, self.n_kv_head, self.head_dim = config.n_head, config.n_kv_head, config.head_dim
        self.window = config.window_sizes[layer]
        self.c_q = Linear(config.n_embd, config.n_head * config.head_dim)
        self.c_k = Linear(config.n_embd, config.n_kv_head * config.head_dim)
        self.c_v = Linear(config.n_embd, config.n_kv_head * config.head_dim)
        self.c_proj = Linear(config.n_embd, config.n_embd)
        if config.has_value_embedding(layer):
            self.ve_gate = Linear(min(_GATE_CHANNELS, config.n_embd), config.n_kv_head)

    def __call__(self, x: mx.array, ve: mx.array | None, kernels: Implementation) -> mx.array:
        B, T, C = x.shape
        q = self.c_q(x).reshape(B, T, self.n_head, self.head_dim)
        k = self.c_k(x).reshape(B, T, self.n_kv_head, self.head_dim)
        v = self.c_v(x).reshape(B, T, self.n_kv_head, self.head_dim)
        if ve is not None:
            # Value residual (ResFormer): a gate per head and token, 2 * sigmoid, so that it starts at 1.
            gate = 2 * mx.sigmoid(self.ve_gate(x[..., :_GATE_CHANNELS]))  # (B, T, H_kv)
            v = v + gate[..., None] * ve.reshape(v.shape)
        q, k = norm_rope(q, implementation=kernels), norm_rope(k, implementation=kernels)
        y = attention(q, k, v, self.window, implementation=kernels)
        return self.c_proj(y.reshape(B, T, C))


class MLP(nn.Module):
    """relu2: W2 relu(W1 x)²; gelu: W2 gelu(W1 x); swiglu: W2 (silu(Wg x) * W1 x) at two thirds of the width."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.kind = config.mlp
        hidden = 4 * config.n_embd
        if self.kind == "swiglu":
            hidden = -(-8 * config.n_embd // 3 // 32) * 32  # about the parameters of the other two
            self.c_gate = Linear(config.n_embd, hidden)
        self.c_fc = Linear(config.n_embd, hidden)
        self.c_proj = Linear(hidden, config.n_embd)

    def __call__(self, x: mx.array) -> mx.array:
        h = self.c_fc(x)
        if self.kind == "relu2":
            h = fastmath.relu2(h)
        elif self.kind == "gelu":
            h = fastmath.gelu(h)
        else:
            h = fastmath.silu(self.c_gate(x)) * h
        return self.c_proj(h)


class Block(nn.Module):
    """One layer: attention, then the MLP, each added to the residual stream (B, T, C)."""

    def __init__(self, config: GPTConfig, layer: int):
        super().__init__()
        self.attn = CausalSelfAttention(config, layer)
        self.mlp = MLP(config)

    def __call__(self, x: mx.array, h: mx.array, ve: mx.array | None, kernels: Implementation) -> mx.array:
        """The residual stream after this block, for the stream x and its norm h, (B, T, C)."""
        x, h = residual_norm(x, self.attn(h, ve, kernels), implementation=kernels)
        return x + self.mlp(h)


class GPT(nn.Module):
    """A decoder-only transformer: token ids in, softcapped logits or their mean cross-entropy out.

    config: shape and switches. compute_dtype: dtype of activations and matrix products; None takes bfloat16 on a
    GPU and float32 on a CPU; gradients in float16 need a scaled loss, as step.py has it. kernels: "mlx" composes every
    operation, "custom" uses our kernels, "auto" whichever is faster here; may be changed at any time. settings: the
    recipe's own; None takes their defaults. Weights are drawn from `mx.random`'s global state, so seed that first.
    """

    def __init__(
        self,
        config: GPTConfig,
        compute_dtype: mx.Dtype | None = None,
        kernels: Implementation = "auto",
        settings: Settings | None = None,
    ):
        super().__init__()
        if compute_dtype is None:
            compute_dtype = mx.bfloat16 if is_gpu() else mx.float32
        self.config = config
        self.settings = Settings() if settings is None else settings
        self.kernels: Implementation = kernels
        self.dtype_name = str(compute_dtype).removeprefix("mlx.core.")  # an mx.Dtype cannot be copied or pickled
        self.transformer = {
            "wte": Embedding(config.vocab_size, config.n_embd),
            "h": [Block(config, i) for i in range(config.n_layer)],
        }
        self.lm_head = Linear(config.n_embd, config.vocab_size)
        self.resid_lambdas = mx.ones((config.n_layer,))
        self.x0_lambdas = mx.ones((config.n_layer,))
        kv_dim = config.n_kv_head * config.head_dim
        # A list with gaps, so that parameter names carry the layer's number as in the reference.
        self.value_embeds = [
            Embedding(config.vocab_size, kv_dim) if config.has_value_embedding(i) else nn.Identity()
            for i in range(config.n_layer)
        ]
        self.init_weights()

    @property
    def compute_dtype(self) -> mx.Dtype:
        """Dtype of activations and matrix products."""
        return getattr(mx, self.dtype_name)

    def init_weights(self) -> None:
        """The reference's initialisation.

        Projections back into the residual stream are zero on purpose: every block starts as the identity, and the
        matrices behind them receive no gradient until the projections have moved.
        """
        s = 3**0.5 * self.config.n_embd**-0.5  # uniform on [-s, s] has the standard deviation n_embd ** -0.5

        def uniform(layer: Linear | Embedding) -> None:
            layer.weight = mx.random.uniform(-s, s, layer.weight.shape)

        wte = self.transformer["wte"]
        wte.weight = mx.random.normal(wte.weight.shape)
        self.lm_head.weight = 0.001 * mx.random.normal(self.lm_head.weight.shape)
        for block in self.transformer["h"]:
            for layer in (block.attn.c_q, block.attn.c_k, block.attn.c_v, block.mlp.c_fc):
                uniform(layer)
            if "c_gate" in block.mlp:
                uniform(block.mlp.c_gate)
            for layer in (block.attn.c_proj, block.mlp.c_proj):
                layer.weight = mx.zeros(layer.weight.shape)
            if "ve_gate" in block.attn:
                block.attn.ve_gate.weight = mx.zeros(block.attn.ve_gate.weight.shape)
        self.resid_lambdas = mx.full((self.config.n_layer,), 1.0)
        self.x0_lambdas = mx.full((self.config.n_layer,), 0.1)
        for table in self.value_embeds:
            if isinstance(table, Embedding):
                uniform(table)

    def hidden(self, idx: mx.array) -> mx.array:
        """The final normalised residual stream (B, T, C) in the compute dtype, for token ids (B, T)."""
        if idx.ndim != 2:
            raise ValueError(f"[GPT] expected token ids (B, T), got shape {idx.shape}")
        dtype, kernels = self.compute_dtype, self.kernels
        x = self.transformer["wte"](idx, dtype, kernels)  # (B, T, C)
        if self.config.embedding_norm:
            x = norm(x)
        x0 = x
        # A float32 scalar would promote the whole residual stream, so the scalars are cast; split, because an integer
        # index is a gather, whose gradient is a scatter.
        lambdas = [resident(a.astype(dtype)).split(self.config.n_layer) for a in (self.resid_lambdas, self.x0_lambdas)]
        for block, table, resid_lambda, x0_lambda in zip(
            self.transformer["h"], self.value_embeds, *lambdas, strict=True
        ):
            x, h = mixed_norm(x, x0, resid_lambda, x0_lambda, implementation=kernels)
            ve = table(idx, dtype, kernels) if isinstance(table, Embedding) else None
            x = block(x, h, ve, kernels)
        return norm(x)

    def logits(self, hidden: mx.array) -> mx.array:
        """Softcapped logits (..., V) in float32 for final features (..., C)."""
        return softcapped(self.lm_head(hidden), self.config.softcap)

    def __call__(self, idx: mx.array) -> mx.array:
        """Softcapped logits (B, T, V) in float32 for token ids (B, T)."""
        return self.logits(self.hidden(idx))

    def loss(self, idx: mx.array, targets: mx.array, loss_scale: mx.array | None = None) -> mx.array:
        """Mean cross-entropy in nats, a float32 scalar, for ids and targets (B, T); targets of -1 are left out.

        loss_scale: what its gradients are multiplied by, as `linear_cross_entropy` does it.

        With kernels "auto", shapes that were never measured on this machine are measured: this is what training calls.
        """
        with measuring():
            x = self.hidden(idx)
            return linear_cross_entropy(
                x.reshape(-1, x.shape[-1]),
                self.lm_head.weight,
                targets.reshape(-1),
                self.config.softcap,
                loss_scale=loss_scale,
                implementation=self.kernels,
            )

    def parameter_counts(self) -> dict[str, int]:
        """Parameters by role, under the reference's names; "scalars" are all that have none of the other roles."""
        roles = ("wte", "value_embeds", "lm_head", "transformer_matrices", "scalars")
        counts: dict[str, int] = dict.fromkeys(roles, 0)
        for name, p in _flat(self):
            role = role_of(name)
            counts[role if role in counts else "scalars"] += p.size
        return counts | {"total": sum(counts.values())}

    def flops_per_token(self) -> int:
        """FLOPs of one forward and backward pass per token, as the reference estimates them.

        6 per matrix parameter (embeddings and scalars do no products) and 12 H D min(w, T) per layer of attention.
        """
        counts = self.parameter_counts()
        c = self.config
        attention_flops = sum(12 * c.n_head * c.head_dim * min(w, c.sequence_len) for w in c.window_sizes)
        return 6 * (counts["lm_head"] + counts["transformer_matrices"]) + attention_flops

    def load_reference_weights(self, weights: Mapping[str, object]) -> None:
        """Take weights under the reference's state-dict names (torch or numpy arrays; linear weights are (out, in)).

        Accepts the "_orig_mod." prefix that torch.compile adds. Raises ValueError naming missing, unexpected or
        wrongly shaped entries.
        """
        given = {name.removeprefix("_orig_mod."): value for name, value in weights.items()}
        own = dict(_flat(self))
        missing, unexpected = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
        if missing or unexpected:
            raise ValueError(f"[load_reference_weights] missing {missing}, unexpected {unexpected}")
        arrays = {name: mx.array(_to_numpy(value)) for name, value in given.items()}
        for name, array in arrays.items():
            if array.shape != own[name].shape:
                raise ValueError(
                    f"[load_reference_weights] {name} must have shape {own[name].shape}, got {array.shape}"
                )
        self.load_weights(list(arrays.items()))


def _flat(model: nn.Module) -> list[tuple[str, mx.array]]:
    return tree_flatten(model.parameters())  # type: ignore[return-value]


def _to_numpy(value: object) -> np.ndarray:
    if hasattr(value, "detach"):  # a torch tensor, bfloat16 included
        value = value.detach().cpu().float().numpy()  # type: ignore[union-attr]
    return np.asarray(value, dtype=np.float32)

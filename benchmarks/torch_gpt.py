"""The recipe's model in PyTorch, to be put under torch.compile: the rival of benchmarks/step.py. Its optimizer and step
are in torch_muon.py.

The arithmetic is that of src/mlx_autoresearch/recipe: tests/benchmarks/test_torch_gpt.py holds logits, gradients and
steps of the two against each other. Embedding tables are kept in the compute dtype and all logits are computed at once,
as in karpathy/autoresearch; other weights are float32 masters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from mlx_autoresearch.config.gpt import GPTConfig
from mlx_autoresearch.recipe.frequencies import frequencies
from mlx_autoresearch.recipe.roles import role_of
from mlx_autoresearch.training.memory import mlp_hidden

Attention = Literal["causal", "mask", "flex"]

_EPS = 1.1920929e-07  # of the norm: float32's machine epsilon
_GATE_CHANNELS = 32


def norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), eps=_EPS)


class Linear(nn.Linear):
    """Without a bias; the float32 weight is cast to the input's dtype, which torch.compile fuses."""

    def __init__(self, in_dims: int, out_dims: int):
        super().__init__(in_dims, out_dims, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class CausalSelfAttention(nn.Module):
    """(B, T, C) -> (B, T, C). attend: of q (B, H, T, D), k and v (B, H_kv, T, D)."""

    def __init__(self, config: GPTConfig, layer: int, attend: Callable[[Tensor, Tensor, Tensor], Tensor]):
        super().__init__()
        C, self.D, self.attend = config.n_embd, config.head_dim, attend
        self.c_q = Linear(C, config.n_head * self.D)
        self.c_k = Linear(C, config.n_kv_head * self.D)
        self.c_v = Linear(C, config.n_kv_head * self.D)
        self.c_proj = Linear(C, C)
        if config.has_value_embedding(layer):
            self.ve_gate = Linear(min(_GATE_CHANNELS, C), config.n_kv_head)

    def forward(self, x: Tensor, ve: Tensor | None, cos: Tensor, sin: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = (c(x).view(B, T, -1, self.D) for c in (self.c_q, self.c_k, self.c_v))
        if ve is not None:
            gate = 2 * torch.sigmoid(self.ve_gate(x[..., :_GATE_CHANNELS]))
            v = v + gate[..., None] * ve.view(v.shape)
        q, k = rotated(norm(q), cos, sin), rotated(norm(k), cos, sin)
        y = self.attend(*(x.transpose(1, 2) for x in (q, k, v)))
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE of (B, T, H, D) by minus the position, in float32; cos and sin: (T, 1, D / 2)."""
    left, right = x.float().chunk(2, dim=-1)
    return torch.cat([left * cos + right * sin, right * cos - left * sin], dim=-1).to(x.dtype)


def make_attention(config: GPTConfig, window: int, kind: Attention, device: str) -> Callable[..., Tensor]:
    """Attention of one layer; a query sees the keys i - window ... i, but with "causal" all of them before it."""
    T, grouped = config.sequence_len, config.n_head != config.n_kv_head
    if kind == "causal" or window >= T - 1:
        return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)

    def visible(_b, _h, query, key):
        return (query >= key) & (query - key <= window)

    if kind == "flex":
        blocks = create_block_mask(visible, None, None, T, T, device=device)
        return lambda q, k, v: flex_attention(q, k, v, block_mask=blocks, enable_gqa=grouped)
    position = torch.arange(T, device=device)
    mask = visible(None, None, position[:, None], position)
    return lambda q, k, v: F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask[: q.shape[2], : q.shape[2]], enable_gqa=grouped
    )


class MLP(nn.Module):
    def __init__(self, config: GPTConfig):
        super().__init__()
        self.kind, hidden = config.mlp, mlp_hidden(config)
        if self.kind == "swiglu":
            self.c_gate = Linear(config.n_embd, hidden)
        self.c_fc = Linear(config.n_embd, hidden)
        self.c_proj = Linear(hidden, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        h = self.c_fc(x)
        if self.kind == "relu2":
            h = F.relu(h).square()
        elif self.kind == "gelu":
            h = F.gelu(h, approximate="tanh")
        else:
            h = F.silu(self.c_gate(x)) * h
        return self.c_proj(h)


class Block(nn.Module):
    def __init__(self, config: GPTConfig, layer: int, attend: Callable[..., Tensor]):
        super().__init__()
        self.attn, self.mlp = CausalSelfAttention(config, layer, attend), MLP(config)


class TorchGPT(nn.Module):
    """`recipe.model.GPT` with its parameters' names. dtype: of activations, products and embedding tables."""

    def __init__(self, config: GPTConfig, dtype: torch.dtype, attention: Attention, device: str):
        super().__init__()
        self.config = config
        attends = [make_attention(config, window, attention, device) for window in config.window_sizes]
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.vocab_size, config.n_embd, dtype=dtype),
                "h": nn.ModuleList(Block(config, i, attend) for i, attend in enumerate(attends)),
            }
        )
        self.lm_head = Linear(config.n_embd, config.vocab_size)
        self.resid_lambdas = nn.Parameter(torch.empty(config.n_layer))
        self.x0_lambdas = nn.Parameter(torch.empty(config.n_layer))
        layers, kv_dim = range(config.n_layer), config.n_kv_head * config.head_dim
        tables = {
            i: nn.Embedding(config.vocab_size, kv_dim, dtype=dtype) for i in layers if config.has_value_embedding(i)
        }
        self.value_embeds = nn.ModuleDict({str(i): table for i, table in tables.items()})
        angle = np.arange(config.sequence_len)[:, None, None] * frequencies(config.head_dim)
        for name, values in (("cos", np.cos(angle)), ("sin", np.sin(angle))):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)
        self.init_weights()
        self.to(device)

    @torch.no_grad()
    def init_weights(self) -> None:
        s = 3**0.5 * self.config.n_embd**-0.5
        for name, p in self.named_parameters():
            if name.endswith(("c_proj.weight", "ve_gate.weight")):
                p.zero_()
            elif name.endswith("_lambdas"):
                p.fill_(1.0 if name == "resid_lambdas" else 0.1)
            elif role_of(name) in ("wte", "lm_head"):
                p.normal_(std=1.0 if role_of(name) == "wte" else 0.001)
            else:
                p.uniform_(-s, s)

    def logits(self, idx: Tensor) -> Tensor:
        """(B, T) -> (B, T, V), softcapped, in float32."""
        x = self.transformer["wte"](idx)
        if self.config.embedding_norm:
            x = norm(x)
        x0, resid, skip = x, self.resid_lambdas.to(x.dtype), self.x0_lambdas.to(x.dtype)
        cos, sin = self.cos[: idx.shape[1]], self.sin[: idx.shape[1]]
        for i, block in enumerate(self.transformer["h"]):
            x = resid[i] * x + skip[i] * x0
            ve = self.value_embeds[str(i)](idx) if str(i) in self.value_embeds else None
            x = x + block.attn(norm(x), ve, cos, sin)
            x = x + block.mlp(norm(x))
        logits, softcap = self.lm_head(norm(x)).float(), self.config.softcap
        return logits if softcap is None else softcap * torch.tanh(logits / softcap)

    def forward(self, idx: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats for ids and targets (B, T); targets of -1 are left out."""
        return F.cross_entropy(self.logits(idx).flatten(0, 1), targets.flatten(), ignore_index=-1)

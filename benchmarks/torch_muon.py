"""The recipe's optimizer and step in PyTorch, under torch.compile, for the model of torch_gpt.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch_gpt import TorchGPT

from mlx_autoresearch.config.settings import OptimizerConfig
from mlx_autoresearch.recipe.muon import POLAR_EXPRESS
from mlx_autoresearch.recipe.roles import role_of

_BEST_FIRST = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class TorchMuonAdamW:
    """`recipe.optimizer.MuonAdamW`: matrices of one shape are stacked, and one compiled graph updates everything."""

    def __init__(self, model: TorchGPT, settings: OptimizerConfig, ns_dtype: torch.dtype, compiled: bool = True):
        self.s, self.ns_dtype = settings, ns_dtype
        named = {name.removeprefix("_orig_mod."): p for name, p in model.named_parameters()}
        device = next(iter(named.values())).device
        self.adamw: list[tuple[Tensor, Tensor, Tensor, float, tuple[float, float], float]] = []
        width, scalar_lr = (model.config.n_embd / 768) ** -0.5, settings.scalar_lr
        by_role = {
            "lm_head": (settings.unembedding_lr * width, settings.adam_betas, 1e-10),
            "wte": (settings.embedding_lr * width, settings.adam_betas, 1e-10),
            "value_embeds": (settings.embedding_lr * width, settings.adam_betas, 1e-10),
            "resid_lambdas": (scalar_lr * 0.01, settings.adam_betas, settings.scalar_eps),
            "x0_lambdas": (scalar_lr, (0.96, 0.95), settings.scalar_eps),
        }
        matrices: dict[tuple[int, ...], list[Tensor]] = {}
        for name, p in named.items():
            if (role := role_of(name)) in by_role:
                self.adamw.append((p, torch.zeros_like(p), torch.zeros_like(p), *by_role[role]))
            else:
                matrices.setdefault(tuple(p.shape), []).append(p)
        self.muon: list[tuple[list[Tensor], Tensor, Tensor]] = []
        for (m, n), ps in matrices.items():
            reduced = (len(ps), m, 1) if m >= n else (len(ps), 1, n)
            self.muon.append((ps, torch.zeros(len(ps), m, n, device=device), torch.zeros(reduced, device=device)))
        # On the device, so that a new value compiles nothing anew.
        self.steps, self.lr, self.momentum, self.decay = (torch.tensor(x, device=device) for x in (0.0, 1.0, 0.95, 1.0))
        self.parameters = list(named.values())
        self._update = torch.compile(self.update, dynamic=False, fullgraph=True) if compiled else self.update

    @torch.no_grad()
    def step(self) -> None:
        self._update([p.grad for p, *_ in self.adamw], [[p.grad for p in ps] for ps, *_ in self.muon])
        for p in self.parameters:
            p.grad = None

    def update(self, adamw_grads: list[Tensor], muon_grads: list[list[Tensor]]) -> None:
        self.steps.add_(1)
        for (p, exp_avg, exp_avg_sq, lr, (beta1, beta2), eps), g in zip(self.adamw, adamw_grads, strict=True):
            g = g.float()
            exp_avg.copy_(beta1 * exp_avg.float() + (1 - beta1) * g)
            exp_avg_sq.copy_(beta2 * exp_avg_sq.float() + (1 - beta2) * g.square())
            denominator = (exp_avg_sq.float() / (1 - beta2**self.steps)).sqrt() + eps
            p.copy_(p.float() - lr * self.lr / (1 - beta1**self.steps) * (exp_avg.float() / denominator))
        for (ps, buffer, second_moment), gs in zip(self.muon, muon_grads, strict=True):
            new = self._muon(torch.stack(ps), torch.stack(gs), buffer, second_moment)
            torch._foreach_copy_(ps, list(new.unbind()))

    def _muon(self, p: Tensor, g: Tensor, buffer: Tensor, second_moment: Tensor) -> Tensor:
        (m, n), s = p.shape[-2:], self.s
        buffer.copy_(self.momentum * buffer + (1 - self.momentum) * g)
        u = newton_schulz(self.momentum * buffer + (1 - self.momentum) * g, s.ns_steps, self.ns_dtype).float()
        axis, size = (-1, n) if m >= n else (-2, m)
        v_mean = u.square().mean(dim=axis, keepdim=True)
        before = (v_mean.sum(dim=(-2, -1), keepdim=True) * size).sqrt()
        second_moment.copy_(s.muon_beta2 * second_moment + (1 - s.muon_beta2) * v_mean)
        scale = second_moment.clamp_min(1e-10).rsqrt()
        after = (v_mean * size * scale.square()).sum(dim=(-2, -1), keepdim=True).sqrt()
        u = u * (scale * (before / after.clamp_min(1e-10)))
        lr = s.matrix_lr * self.lr * max(1.0, m / n) ** 0.5
        return p - lr * (u + s.weight_decay * self.decay * p * (u * p >= 0))


def newton_schulz(g: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Each matrix of (K, m, n) orthogonalised, approximately, by Polar Express; the products run in `dtype`."""
    x = (g / (torch.linalg.vector_norm(g, dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)).to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    for a, b, c in POLAR_EXPRESS[:steps]:
        A = x.mT @ x if tall else x @ x.mT
        B = b * A + c * (A @ A)
        x = a * x + (x @ B if tall else B @ x)
    return x


def make_step(
    model: TorchGPT, optimizer: TorchMuonAdamW, accumulation_steps: int, compiled: bool = True
) -> Callable[[Iterator[tuple[Tensor, Tensor]]], float]:
    """One optimizer step, as `recipe.step.make_step` makes it; returns the mean loss, for which it waits."""
    loss_of = torch.compile(model, dynamic=False) if compiled else model

    def step(batches: Iterator[tuple[Tensor, Tensor]]) -> float:
        total = torch.zeros((), device=model.resid_lambdas.device)
        for _ in range(accumulation_steps):
            with sdpa_kernel(_BEST_FIRST, set_priority=True):
                loss = loss_of(*next(batches)) / accumulation_steps
            loss.backward()
            total += loss.detach()
        optimizer.step()
        return total.item()

    return step

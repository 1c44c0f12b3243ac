from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map

from mlx_autoresearch.config.gpt import GPTConfig
from mlx_autoresearch.recipe.model import GPT
from mlx_autoresearch.recipe.muon import POLAR_EXPRESS, muon_update, newton_schulz
from mlx_autoresearch.recipe.optimizer import AdamWGroup, MuonAdamW, MuonGroup, adamw_update
from tests.support.arrays import normal, relative_error
from tests.support.compiled_loops import loops, needs_gcc
from tests.support.rounding import check_within, rounding


@pytest.mark.parametrize("shape", [(1, 5, 5), (3, 8, 33), (2, 33, 8), (4, 1, 7), (1, 64, 64)])
def test_newton_schulz_orthogonalises(shape) -> None:
    """Singular vectors stay, singular values move close to 1."""
    g = normal(shape, 0)
    u, s, vt = np.linalg.svd(np.array(g, np.float64), full_matrices=False)
    x = np.array(newton_schulz(g, 5), np.float64)
    in_basis = np.swapaxes(u, -1, -2) @ x @ np.swapaxes(vt, -1, -2)
    values = np.diagonal(in_basis, axis1=-2, axis2=-1)
    off = in_basis - values[..., None] * np.eye(values.shape[-1])
    well_conditioned = s > 1e-2 * np.linalg.norm(s, axis=-1, keepdims=True)
    assert np.abs(off).max() < 1e-3
    assert np.all((values > 0.6) & (values < 1.3) | ~well_conditioned)


def test_newton_schulz_ignores_the_scale() -> None:
    g = normal((2, 16, 48), 1)
    error = rounding(lambda inputs: {"x": newton_schulz(inputs["g"], 5)}, {"g": g})
    for scale in (10.0, 1e4):  # below that the 1e-6 added to the norm shows
        check_within({"x": newton_schulz(g * scale, 5)}, {"x": newton_schulz(g, 5)}, error)
    assert np.isfinite(np.array(newton_schulz(mx.zeros((1, 4, 4)), 5))).all()


def test_newton_schulz_in_bfloat16() -> None:
    g = normal((1, 64, 64), 2)
    x = newton_schulz(g, 5, dtype=mx.bfloat16)
    assert x.dtype == mx.bfloat16
    assert relative_error(x.astype(mx.float32), newton_schulz(g, 5)) < 0.15  # five quintic steps at 3 digits
    # Summed in bfloat16, 65,536 ones make 256, a norm 16 times too small, and the iteration explodes.
    ones = newton_schulz(mx.ones((1, 256, 256), mx.bfloat16), 5, dtype=mx.bfloat16).astype(mx.float32)
    assert 0.6 < ones.mean().item() * 256 < 1.3


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(2, 16, 48), (2, 48, 16)])
def test_newton_schulz_computes_with_the_numbers_of_the_table(shape, dtype: mx.Dtype) -> None:
    g = normal(shape, 3)
    x = newton_schulz(g, 0, dtype=dtype)
    for a, b, c in POLAR_EXPRESS:
        xt = x.swapaxes(-2, -1)
        A = x @ xt if shape[-2] < shape[-1] else xt @ x
        B = b * A + c * (A @ A)
        x = a * x + (B @ x if shape[-2] < shape[-1] else x @ B)
    assert x.dtype == dtype
    assert mx.array_equal(newton_schulz(g, 5, dtype=dtype, implementation="mlx"), x)


@needs_gcc
def test_every_iteration_of_newton_schulz_runs_the_same_loops(tmp_path: Path) -> None:
    """More of them compile no more: a cold first step is mostly compilation."""
    made = []
    for steps in (2, 5):
        temporary = tmp_path / str(steps)
        temporary.mkdir()
        code = f"""
import mlx_autoresearch
import mlx.core as mx
from mlx_autoresearch.recipe.muon import newton_schulz
mx.set_default_device(mx.cpu)
mx.eval(mx.compile(lambda g: newton_schulz(g, {steps}, implementation="mlx"))(mx.ones((1, 4, 8))))
"""
        subprocess.run([sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(temporary)}, check=True)
        made.append([path.name for path in loops(temporary)])
    assert made[0] == made[1] != []


def test_adamw_against_its_definition_in_float64() -> None:
    p0, lr, b1, b2, eps, decay = normal((5, 3), 0), 0.01, 0.8, 0.95, 1e-10, 0.1
    p, m, v = p0, mx.zeros((5, 3)), mx.zeros((5, 3))
    q, mm, vv = np.array(p0, np.float64), np.zeros((5, 3)), np.zeros((5, 3))
    for step in range(1, 6):
        g = normal((5, 3), step)
        p, m, v = adamw_update(
            p, g, m, v, step=mx.array(float(step)), lr=lr, betas=(b1, b2), eps=eps, weight_decay=decay
        )
        g = np.array(g, np.float64)
        mm, vv = b1 * mm + (1 - b1) * g, b2 * vv + (1 - b2) * g * g
        q = q * (1 - lr * decay) - lr * (mm / (1 - b1**step)) / (np.sqrt(vv / (1 - b2**step)) + eps)
    assert relative_error(p, q) < 1e-6


def muon_step(p: mx.array, g: mx.array, **settings) -> mx.array:
    K, m, n = p.shape
    second = mx.zeros((K, m, 1) if m >= n else (K, 1, n))
    defaults = {"lr": 0.1, "momentum": 0.9, "beta2": 0.95, "weight_decay": 0.0, "ns_steps": 5}
    return muon_update(p, g, mx.zeros(p.shape), second, **(defaults | settings))[0]


@pytest.mark.parametrize("shape", [(1, 32, 8), (1, 8, 32), (1, 16, 16)])
def test_the_first_muon_step_has_the_norm_of_an_orthogonal_matrix(shape) -> None:
    """Variance reduction keeps the update's Frobenius norm, near sqrt(rank), and evens out its rows or columns."""
    m, n = shape[1:]
    p = mx.zeros(shape)
    moved = np.array(muon_step(p, normal(shape, 0)), np.float64)[0] / (0.1 * max(1, m / n) ** 0.5)
    assert np.linalg.norm(moved) == pytest.approx(min(m, n) ** 0.5, rel=0.15)
    per_neuron = np.linalg.norm(moved, axis=1 if m >= n else 0)
    assert per_neuron.std() / per_neuron.mean() < 1e-3


def test_weight_decay_is_cautious() -> None:
    """It acts only where it points the same way as the update."""
    p, g = normal((1, 12, 12), 0), normal((1, 12, 12), 1)
    plain, decayed = (np.array(muon_step(p, g, weight_decay=w), np.float64) for w in (0.0, 0.5))
    before = np.array(p, np.float64)
    agrees = (before - plain) * before >= 0
    assert 0.2 < agrees.mean() < 0.8
    assert np.allclose(plain - decayed, np.where(agrees, 0.1 * 0.5 * before, 0), atol=1e-7)


def test_matrices_of_a_batch_do_not_mix() -> None:
    p, g = normal((3, 6, 10), 0), normal((3, 6, 10), 1)
    together = muon_step(p, g)
    for i in range(3):
        alone = {"p": p[i : i + 1], "g": g[i : i + 1]}
        error = rounding(lambda inputs: {"p": muon_step(**inputs)}, alone)
        check_within({"p": together[i : i + 1]}, {"p": muon_step(**alone)}, error)


def test_groups_must_cover_every_parameter_once() -> None:
    parameters = {"a": mx.zeros((2, 2)), "b": mx.zeros((2, 2))}
    for groups in (
        [AdamWGroup(("a",), 0.1)],
        [AdamWGroup(("a", "b"), 0.1), MuonGroup(("b",), 0.1)],
        [AdamWGroup(("a", "b", "c"), 0.1)],
    ):
        with pytest.raises(ValueError, match="exactly one group"):
            MuonAdamW(groups).init(parameters)
    with pytest.raises(ValueError, match="matrices of one shape"):
        MuonAdamW([MuonGroup(("a", "b"), 0.1)]).init({"a": mx.zeros((2, 2)), "b": mx.zeros((2, 3))})


@pytest.mark.parametrize(("scalar_eps", "moved"), [(1e-10, 0.5), (1e-4, 0.5e-2)])
def test_an_epsilon_above_rounding_keeps_rounding_from_moving_the_scalars(scalar_eps: float, moved: float) -> None:
    """While the projections are zero, the gradients of the scalars are rounding: 1e-6, say, in bfloat16."""
    model = GPT(GPTConfig(vocab_size=64, n_layer=2, n_head=2, n_kv_head=2, n_embd=32, sequence_len=16))
    optimizer = MuonAdamW.for_gpt(model, scalar_eps=scalar_eps)
    before = {name: mx.array(model[name]) for name in ("resid_lambdas", "x0_lambdas")}
    gradients = tree_map(mx.zeros_like, model.parameters())
    gradients |= {name: mx.full(p.shape, 1e-6) for name, p in before.items()}
    optimizer.update(model, gradients)
    for name, share in (("x0_lambdas", 1.0), ("resid_lambdas", 0.01)):
        change = mx.abs(model[name] - before[name]).max().item()
        assert change == pytest.approx(share * moved, rel=0.02)

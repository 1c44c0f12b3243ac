"""Flash attention's kernels: out, lse and gradients within the budgets of the same-precision composed path."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.kernels.operation import Language
from mlx_autoresearch.recipe.kernels.flash_attention import flash_attention
from tests.support.arrays import normal
from tests.support.attention_reference import composed, definition, definition_gradients, probabilities

EPSILON = {mx.float32: 2**-23, mx.float16: 2**-10, mx.bfloat16: 2**-7}

# (B, T, H, H_kv, D), dtype: odd T below, at and past the blocks of 32; every head dim; groups of 1 to 8 heads.
SHAPES = [
    ((2, 1, 8, 1, 32), mx.float32),
    ((2, 7, 6, 2, 32), mx.float32),
    ((2, 33, 4, 2, 32), mx.float32),
    ((1, 97, 2, 1, 32), mx.float16),
    ((1, 257, 4, 1, 32), mx.float32),
    ((2, 97, 3, 1, 64), mx.bfloat16),
    ((1, 33, 2, 2, 96), mx.float32),
    ((1, 64, 2, 1, 128), mx.float32),
    ((1, 97, 2, 1, 128), mx.bfloat16),
]


def windows(T: int) -> list[int | None]:
    return [*sorted({0, 1, T // 2, T - 1, T}), None]


def inputs(shape: tuple[int, int, int, int, int], dtype: mx.Dtype = mx.float32) -> list[mx.array]:
    """q, k, v and a cotangent of the output."""
    B, T, H, H_kv, D = shape
    shapes = [(B, T, H, D), (B, T, H_kv, D), (B, T, H_kv, D), (B, T, H, D)]
    return [normal(s, seed).astype(dtype) for seed, s in enumerate(shapes)]


def exact(x: mx.array) -> np.ndarray:
    return np.array(x.astype(mx.float32), np.float64)


def error(got: mx.array, expected: np.ndarray) -> float:
    assert got.shape == expected.shape
    return float(np.abs(exact(got) - expected).max())


def floor(dtype: mx.Dtype, expected: np.ndarray) -> float:
    """One rounding of the largest result, and 32 of the float32 sums, which cancel exactly where one key is seen."""
    return EPSILON[dtype] * np.abs(expected).max() + 32 * EPSILON[mx.float32]


def same(a: mx.array, b: mx.array) -> bool:
    return np.array_equal(exact(a), exact(b))


@pytest.mark.parametrize(("shape", "dtype"), SHAPES, ids=str)
def test_output_and_gradients_against_float64(shape, dtype, implementation: Language) -> None:
    *primals, d_out = inputs(shape, dtype)
    q, k, v, g = (exact(x) for x in (*primals, d_out))
    for window in windows(shape[1]):
        cotangents = [d_out, mx.zeros((shape[0], shape[2], shape[1]))]
        (out, lse), got = mx.vjp(
            lambda q, k, v, w=window: flash_attention(q, k, v, w, implementation=implementation), primals, cotangents
        )
        with mx.stream(mx.cpu):
            (plain,), same_precision = mx.vjp(lambda q, k, v, w=window: composed(q, k, v, w), primals, [d_out])
        expected = definition(q, k, v, window)
        assert (out.dtype, lse.dtype) == (dtype, mx.float32)
        assert error(out, expected) <= 2 * error(plain, expected) + floor(dtype, expected), window
        assert error(lse, probabilities(q, k, window)[1]) < 5e-6, window
        gradients = definition_gradients(q, k, v, g, window)
        for name, have, compare, want in zip("qkv", got, same_precision, gradients, strict=True):
            assert have.dtype == dtype
            assert error(have, want) <= 3 * error(compare, want) + floor(dtype, want), (window, name)


@pytest.mark.parametrize(("offset", "scale"), [(400, 1), (0, 1000)])
def test_float16_holds_what_its_sums_would_not(offset: float, scale: float, implementation: Language) -> None:
    """257 values of 400 are 102,800, and float16 ends at 65,504; gradients are as large as a loss scale makes them."""
    q, k, v, d_out = inputs((1, 257, 2, 1, 32))
    *primals, d_out = (x.astype(mx.float16) for x in (q, k, v + offset, scale * d_out))
    no_d_lse = mx.zeros((1, 2, 257))
    (out, _), got = mx.vjp(lambda *x: flash_attention(*x, implementation=implementation), primals, [d_out, no_d_lse])
    with mx.stream(mx.cpu):
        (plain,), same_precision = mx.vjp(lambda *x: composed(*x, None), primals, [d_out])
    q, k, v, g = (exact(x) for x in (*primals, d_out))
    wanted = [definition(q, k, v, None), *definition_gradients(q, k, v, g, None)]
    for have, compare, want in zip([out, *got], [plain, *same_precision], wanted, strict=True):
        assert error(have, want) <= 3 * error(compare, want) + floor(mx.float16, want)


def test_both_ways_to_share_out_the_gradients_of_keys_are_right(implementation: Language) -> None:
    *primals, d_out = inputs((1, 97, 4, 2, 32))
    cotangents = [d_out, mx.zeros((1, 4, 97))]
    q, k, v, g = (exact(x) for x in (*primals, d_out))
    for variant in ("single", "pairs"):
        _, got = mx.vjp(
            lambda *x, way=variant: flash_attention(*x, 40, implementation=implementation, variant=way),
            primals,
            cotangents,
        )
        for have, want in zip(got, definition_gradients(q, k, v, g, 40), strict=True):
            assert error(have, want) < 1e-5, variant
    with pytest.raises(ValueError, match="variant must be one of single, pairs, got 'triples'"):
        flash_attention(*primals, implementation=implementation, variant="triples")


def test_lse_is_differentiable_too(implementation: Language) -> None:
    *primals, d_out = inputs((2, 40, 4, 2, 32))
    d_lse = normal((2, 4, 40), 9)
    for cotangents in ([d_out, d_lse], [mx.zeros_like(d_out), d_lse]):
        _, got = mx.vjp(lambda *x: flash_attention(*x, 20, implementation=implementation), primals, cotangents)
        q, k, v, g, dl = (exact(x) for x in (*primals, *cotangents))
        for have, want in zip(got, definition_gradients(q, k, v, g, 20, dl), strict=True):
            assert error(have, want) < 1e-5


def test_gradients_against_finite_differences(implementation: Language) -> None:
    *primals, weights = inputs((1, 45, 2, 1, 32))
    directions = [normal(x.shape, 10 + i) for i, x in enumerate(primals)]

    def loss(*x: mx.array) -> mx.array:
        return (flash_attention(*x, 11, implementation=implementation)[0] * weights).sum()

    def moved(step: float) -> float:
        return loss(*(x + step * d for x, d in zip(primals, directions, strict=True))).item()  # type: ignore

    gradients = mx.grad(loss, argnums=(0, 1, 2))(*primals)
    slope = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True))
    h = 1e-2
    assert (moved(h) - moved(-h)) / (2 * h) == pytest.approx(slope, rel=2e-3)


def test_later_keys_do_not_matter(implementation: Language) -> None:
    q, k, v, _ = inputs((1, 70, 2, 1, 32))
    later = mx.arange(70)[None, :, None, None] >= 41
    changed = [mx.where(later, x + 1, x) for x in (k, v)]
    out, lse = flash_attention(q, k, v, implementation=implementation)
    moved, moved_lse = flash_attention(q, *changed, implementation=implementation)
    assert same(out[:, :41], moved[:, :41])
    assert same(lse[..., :41], moved_lse[..., :41])
    assert not same(out[:, 41:], moved[:, 41:])

    def loss(k: mx.array, v: mx.array) -> mx.array:
        return flash_attention(q, k, v, implementation=implementation)[0][:, :41].sum()

    for gradient in mx.grad(loss, argnums=(0, 1))(k, v):
        assert np.abs(exact(gradient[:, 41:])).max() == 0
        assert np.abs(exact(gradient[:, :41])).max() > 0


@pytest.mark.parametrize("window", [0, 2, 31, 33])
def test_the_window_ends_exactly_where_it_says(window: int, implementation: Language) -> None:
    """Query 40 sees keys 40 - w ... 40 and no other: its output and lse react to them alone, and only they to it."""
    q, k, v, _ = inputs((1, 45, 1, 1, 32))

    def outputs_of_40(k: mx.array, v: mx.array) -> mx.array:
        out, lse = flash_attention(q, k, v, window, implementation=implementation)
        return out[0, 40, 0, 0] + lse[0, 0, 40]

    seen = [key for key in range(45) if 40 - window <= key <= 40]
    for gradient in mx.grad(outputs_of_40, argnums=(0, 1))(k, v):
        moved = np.abs(exact(gradient)).max(axis=(0, 2, 3))
        assert np.flatnonzero(moved).tolist() == seen


def test_blocks_outside_the_window_are_not_loaded(implementation: Language) -> None:
    """A NaN in a block that was loaded would spread, even where the mask hides it.

    In v, with which the block of k goes: of NaN in k, fast::exp2 promises nothing to the rows that see it.
    """
    q, k, v, d_out = inputs((1, 160, 1, 1, 32))
    position = mx.arange(160)[None, :, None, None]
    for hidden in (position < 32, position >= 128):
        poisoned = [k, mx.where(hidden, mx.nan, v)]
        out, lse = flash_attention(q, *poisoned, 32, implementation=implementation)
        assert np.isfinite(exact(out[:, 64:128])).all()
        assert np.isfinite(exact(lse[..., 64:128])).all()
        cotangents = [mx.where(hidden, mx.nan, d_out), mx.zeros((1, 1, 160))]
        _, gradients = mx.vjp(lambda *x: flash_attention(*x, 32, implementation=implementation), [q, k, v], cotangents)
        for gradient in gradients:
            assert np.isfinite(exact(gradient[:, 64:96])).all()


def test_nothing_is_zero(implementation: Language) -> None:
    *primals, d_out = inputs((1, 65, 2, 1, 32))
    cotangents = [d_out, normal((1, 2, 65), 9)]
    outputs, gradients = mx.vjp(lambda *x: flash_attention(*x, implementation=implementation), primals, cotangents)
    for x in (*outputs, *gradients):
        assert (exact(x) != 0).all()


def test_inputs_and_cotangents_may_be_views(implementation: Language) -> None:
    """Broadcast, transposed and sliced arrays give what their copies give."""
    fused = normal((2, 40, 2 + 2, 64), 5)
    views = [fused[:, :, :2, :32], fused[:, :, 2:3, 32:], fused[:, :, 3:, :32]]
    transposed = normal((2, 2, 32, 40), 6).transpose(0, 3, 1, 2)
    broadcast = mx.broadcast_to(mx.array([0.5, -1.0])[:, None], (2, 40, 2, 32))
    for d_out in (transposed, broadcast):
        lse_views = [mx.broadcast_to(mx.array(0.25), (2, 2, 40)), normal((40, 2, 2), 7).transpose(1, 2, 0)]
        for d_lse in lse_views:
            given = [views, [d_out, d_lse]]
            copies = [[mx.array(np.array(x)) for x in xs] for xs in given]
            results = [
                mx.vjp(lambda *x: flash_attention(*x, 9, implementation=implementation), *xs) for xs in (given, copies)
            ]
            for a, b in zip(*([*outputs, *gradients] for outputs, gradients in results), strict=True):
                assert same(a, b)


def test_either_output_may_go_unused(implementation: Language) -> None:
    q, k, v, _ = inputs((1, 33, 2, 1, 32))
    arrays = [exact(x) for x in (q, k, v)]
    for index, d, d_lse in ((0, np.ones((1, 33, 2, 32)), np.zeros((1, 2, 33))), (1, np.zeros((1, 33, 2, 32)), 1.0)):
        d_lse = np.broadcast_to(d_lse, (1, 2, 33))
        got = mx.grad(lambda *x, i=index: flash_attention(*x, implementation=implementation)[i].sum(), (0, 1, 2))(
            q, k, v
        )
        for have, want in zip(got, definition_gradients(*arrays, d, None, d_lse), strict=True):
            assert error(have, want) < 1e-5


def test_checkpointing_changes_nothing(implementation: Language) -> None:
    *primals, weights = inputs((1, 33, 2, 1, 32))

    def layer(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return flash_attention(mx.tanh(q), k, v, 12, implementation=implementation)[0]

    plain, recomputed = (
        mx.value_and_grad(lambda *x, f=f: (f(*x) * weights).sum(), (0, 1, 2))(*primals)
        for f in (layer, mx.checkpoint(layer))
    )
    assert same(plain[0], recomputed[0])
    assert all(same(a, b) for a, b in zip(plain[1], recomputed[1], strict=True))


def test_compiling_changes_nothing(implementation: Language) -> None:
    if implementation == "simulator":
        pytest.skip("the simulator needs values: it runs where nothing is compiled")
    *primals, weights = inputs((2, 97, 4, 2, 64), mx.bfloat16)

    def step(*x: mx.array) -> tuple[mx.array, ...]:
        def loss(*x: mx.array) -> mx.array:
            return (flash_attention(*x, 40, implementation=implementation)[0] * weights).astype(mx.float32).sum()

        value, gradients = mx.value_and_grad(loss, (0, 1, 2))(*x)
        return value, *gradients

    for a, b in zip(step(*primals)[1:], mx.compile(step)(*primals)[1:], strict=True):
        assert same(a, b)


def test_large_scores_do_not_overflow(implementation: Language) -> None:
    q, k, v, d_out = inputs((1, 40, 1, 1, 32))
    cotangents = [d_out, mx.zeros((1, 1, 40))]
    outputs, gradients = mx.vjp(
        lambda *x: flash_attention(*x, implementation=implementation), [q * 100, k * 100, v], cotangents
    )
    assert all(np.isfinite(exact(x)).all() for x in (*outputs, *gradients))


@pytest.mark.parametrize(
    ("q", "k", "v", "window", "message"),
    [
        ((1, 4, 2, 80), (1, 4, 2, 80), (1, 4, 2, 80), None, "expected head dim 32, 64, 96 or 128, got 80"),
        ((1, 4, 3, 32), (1, 4, 2, 32), (1, 4, 2, 32), None, "multiple of key heads, got 3 and 2"),
        ((1, 4, 2, 32), (1, 5, 2, 32), (1, 5, 2, 32), None, "must agree in B, T and D"),
        ((1, 4, 2, 32), (1, 4, 2, 32), (1, 4, 1, 32), None, "expected q"),
        ((4, 2, 32), (4, 2, 32), (4, 2, 32), None, "expected q"),
        ((1, 4, 2, 32), (1, 4, 2, 32), (1, 4, 2, 32), -1, "window must be at least 0 or None, got -1"),
    ],
)
def test_wrong_use_is_named(q, k, v, window, message) -> None:
    with pytest.raises(ValueError, match=r"^\[flash_attention\] .*" + message):
        flash_attention(mx.zeros(q), mx.zeros(k), mx.zeros(v), window, implementation="simulator")


def test_wrong_dtypes_are_refused() -> None:
    q, k, v, _ = inputs((1, 4, 2, 2, 32))
    with pytest.raises(ValueError, match="share a dtype"):
        flash_attention(q.astype(mx.bfloat16), k, v, implementation="simulator")
    with pytest.raises(ValueError, match=r"float32, float16 or bfloat16, got mlx\.core\.int32"):
        flash_attention(*(x.astype(mx.int32) for x in (q, k, v)), implementation="simulator")

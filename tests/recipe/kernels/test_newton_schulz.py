"""Newton-Schulz by kernels: as exact as the composed path of the same precision, and orthogonal."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_autoresearch.recipe.muon import POLAR_EXPRESS, newton_schulz


def gaussian(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def exact(g, steps=5):
    """The definition in float64."""
    x = g.astype(np.float64)
    x = x / (np.sqrt((x**2).sum(axis=(-2, -1), keepdims=True)) * 1.02 + 1e-6)
    for a, b, c in POLAR_EXPRESS[:steps]:
        gram = x @ x.swapaxes(-2, -1)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def rms_error(x, reference):
    return np.sqrt(np.mean((np.array(x.astype(mx.float32), np.float64) - reference) ** 2))


@pytest.mark.parametrize(
    ("dtype", "epsilon", "shape"),
    [
        (mx.float32, 6e-8, (1, 33, 97)),
        (mx.float32, 6e-8, (3, 7, 5)),
        (mx.bfloat16, 4e-3, (1, 97, 33)),
        (mx.bfloat16, 4e-3, (2, 68, 68)),
        (mx.float16, 5e-4, (1, 36, 68)),
    ],
)
def test_error_is_at_most_twice_that_of_the_composed_path(implementation, shape, dtype, epsilon):
    g = gaussian(shape)
    reference = exact(g)
    x = newton_schulz(mx.array(g), 5, dtype=dtype, implementation=implementation)
    composed = newton_schulz(mx.array(g), 5, dtype=dtype, implementation="mlx")
    size = np.sqrt(np.mean(reference**2))
    assert x.dtype == dtype and x.shape == shape
    assert rms_error(x, reference) <= 2 * rms_error(composed, reference) + epsilon * size


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e4])
@pytest.mark.parametrize("which", ["mlx", "kernels"])
def test_float16_is_finer_than_bfloat16(implementation, which, size):
    """No iterate has an entry far above 1; and what float16 rounds to 0 is small beside the rest of its matrix."""
    how = "mlx" if which == "mlx" else implementation
    low_rank = gaussian((1, 64, 4), 2) @ gaussian((1, 4, 64), 3) + 0.03 * gaussian((1, 64, 64), 4)
    uneven = gaussian((1, 64, 64), 5) * np.logspace(0, -4, 64, dtype=np.float32)[:, None]
    for g in (gaussian((1, 64, 64)), low_rank, uneven):
        reference = exact(size * g)
        half, brain = (
            rms_error(newton_schulz(mx.array(size * g), 5, dtype=dtype, implementation=how), reference)
            for dtype in (mx.float16, mx.bfloat16)
        )
        assert half < 0.4 * brain


@pytest.mark.parametrize(("m", "n"), [(33, 70), (70, 33), (41, 41)])
def test_orthogonalises(implementation, m, n):
    u, _, v = np.linalg.svd(gaussian((1, m, n), 1), full_matrices=False)
    g = u * np.linspace(1, 0.05, min(m, n)) @ v  # with singular values that five steps can bring to 1
    x = newton_schulz(mx.array(g.astype(np.float32)), 5, implementation=implementation)
    assert np.all(np.abs(np.linalg.svd(np.array(x, np.float64), compute_uv=False) - 1) < 0.2)
    assert np.abs(np.array(x, np.float64) - u @ v).max() < 0.2  # U Vᵀ, not another orthogonal matrix


def test_every_step_counts(implementation):
    g = gaussian((1, 9, 12))
    for steps in (0, 1, 2):
        x = newton_schulz(mx.array(g), steps, implementation=implementation)
        assert rms_error(x, exact(g, steps)) < 1e-6


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (1, 2, 1), (2, 2, 3)])
def test_matrices_of_few_elements(implementation, shape):
    g = gaussian(shape, 2)
    x = newton_schulz(mx.array(g), 5, implementation=implementation)
    assert x.shape == shape and rms_error(x, exact(g)) < 1e-4


def test_matrices_of_a_batch_do_not_mix(implementation):
    g = mx.array(gaussian((3, 65, 20), 3))
    together = newton_schulz(g, 2, implementation=implementation)
    for i in range(3):
        alone = newton_schulz(g[i : i + 1], 2, implementation=implementation)
        assert mx.array_equal(together[i : i + 1], alone)


def test_transposed_and_broadcast_gradients(implementation):
    g = gaussian((2, 12, 20), 4)
    x = newton_schulz(mx.array(g).swapaxes(-2, -1), 2, implementation=implementation)
    assert rms_error(x, exact(g, 2).swapaxes(-2, -1)) < 1e-6
    same = newton_schulz(mx.broadcast_to(mx.array(g[:1]), (2, 12, 20)), 2, implementation=implementation)
    assert rms_error(same, np.repeat(exact(g[:1], 2), 2, axis=0)) < 1e-6


def test_zero_gradients_stay_zero(implementation):
    x = newton_schulz(mx.zeros((1, 8, 8)), 5, implementation=implementation)
    assert mx.array_equal(x, mx.zeros((1, 8, 8)))


def test_wrong_use_is_refused():
    for shape in ((4, 4), (2, 0, 3)):
        with pytest.raises(ValueError, match=r"\[newton_schulz\] expected matrices \(K, m, n\), none empty"):
            newton_schulz(mx.zeros(shape), 5, implementation="simulator")
    with pytest.raises(ValueError, match=r"\[newton_schulz\] expected float32, float16 or bfloat16"):
        newton_schulz(mx.zeros((1, 2, 2)), 5, dtype=mx.int32, implementation="simulator")

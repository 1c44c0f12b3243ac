from __future__ import annotations

import mlx.core as mx
import pytest

from mlx_autoresearch.training import speed
from mlx_autoresearch.training.speed import Peaks, mfu_percent


def test_mfu_is_the_share_of_the_peak() -> None:
    assert mfu_percent(flops_per_token=6e6, tokens_per_second=1e5, peak_flops=2.4e12) == pytest.approx(25.0)


@pytest.mark.parametrize("tokens_per_second, again", [(89.0, False), (91.0, True), (200.0, True)])
def test_a_peak_that_a_training_comes_too_near_is_measured_anew(
    monkeypatch: pytest.MonkeyPatch, tokens_per_second: float, again: bool
) -> None:
    monkeypatch.setattr(speed.device, "matmul_peak_flops", lambda dtype, again: 250.0 if again else None)
    peaks = Peaks(mx.float32, measured=100.0, published=300.0)
    assert peaks.checked(1.0, tokens_per_second) == (Peaks(mx.float32, 250.0, 300.0) if again else peaks)

"""Learning rate, momentum and weight decay as functions of progress through the budget (0 ... 1)."""

from __future__ import annotations


# Settings have their defaults in the configuration's section `train`.
def lr_multiplier(progress: float, warmup_ratio: float, warmdown_ratio: float, final_lr_frac: float) -> float:
    """Trapezoid: linear up over `warmup_ratio`, 1, linear down to `final_lr_frac` over the last `warmdown_ratio`."""
    if progress < warmup_ratio:
        return progress / warmup_ratio
    if progress < 1.0 - warmdown_ratio or warmdown_ratio == 0.0:
        return 1.0
    # 1 where the warmdown begins, 0 at the end of the budget.
    cooldown = (1.0 - progress) / warmdown_ratio
    return cooldown + (1.0 - cooldown) * final_lr_frac


def muon_momentum(step: int, start: float, end: float, ramp_steps: int) -> float:
    """Linear from `start` to `end` over the first `ramp_steps` steps."""
    fraction = min(step / ramp_steps, 1.0)
    return (1.0 - fraction) * start + fraction * end


def weight_decay_multiplier(progress: float) -> float:
    """Linear from 1 down to 0."""
    return 1.0 - progress

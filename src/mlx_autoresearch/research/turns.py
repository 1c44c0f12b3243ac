"""When a gain may be the machine's: what a change can do to the cost of a step, and whether a candidate got more done.

In a time budget a run ends better where the machine is quieter, because it makes more steps. Runs of the candidate and
the best that lie apart in time do not tell the two explanations apart; runs made in turns, right after each other, do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.ledger.ledger import Record, Trial
from mlx_autoresearch.ledger.noise import Noise
from mlx_autoresearch.ledger.seeds import Seeds

from .decision import Discard, Judge, Keep, MoreSeeds, t_quantile

# Settings that are numbers in a step's arithmetic: whatever their value, a step does the same work.
_FREE = frozenset(
    {
        "optimizer.unembedding_lr",
        "optimizer.embedding_lr",
        "optimizer.matrix_lr",
        "optimizer.scalar_lr",
        "optimizer.scalar_eps",
        "optimizer.weight_decay",
        "optimizer.adam_betas",
        "optimizer.muon_beta2",
        "train.warmup_ratio",
        "train.warmdown_ratio",
        "train.final_lr_frac",
        "train.muon_momentum",
        "train.muon_momentum_steps",
    }
)
_RATE_AGAIN = 0.2  # of keeps without effect among runs in turns
_RATE = 0.05  # how often runs of one speed may be measured in turns for nothing


def same_cost(overrides: Iterable[str], *, code_changed: bool) -> bool:
    """Whether a step costs the same before and after a change of these settings."""
    return not code_changed and _FREE.issuperset(overrides)


def by_time(config: Config) -> bool:
    """Whether a run's steps depend on the machine."""
    return config.train.max_steps is None


def more_done(candidate: Sequence[Trial], best: Sequence[Trial], records: Sequence[Record], seeds: Seeds) -> bool:
    """Whether the candidate's runs made more steps than the best's, by more than their scatter explains.

    The scatter is that of the logarithm of a kept configuration's steps within one window of seeds, whose runs are
    close in time, and at least what one step makes; the test is Student's, at one side.
    """
    if not candidate or not best:
        return False
    groups: dict[tuple[int, str, int], list[float]] = {}
    for record in records:
        if record.status == "keep":
            for trial in record.trials:
                group = groups.setdefault((record.number, record.event, seeds.window_of(trial.seed)), [])
                group.append(-math.log(max(trial.steps, 1)))  # `Noise` takes high values for disturbed runs
    if not any(len(group) > 1 for group in groups.values()):
        return False
    noise = Noise.pooled(groups.values())
    ours, theirs = ([math.log(max(t.steps, 1)) for t in trials] for trials in (candidate, best))
    n, m = len(ours), len(theirs)
    sd = max(noise.sd, 1 / max(t.steps for t in best))
    excess = sum(ours) / n - sum(theirs) / m
    return excess > t_quantile(1 - _RATE, noise.df) * sd * math.sqrt(1 / n + 1 / m)


def in_turns(
    judge: Judge,
    seeds: Sequence[int],
    one: Callable[[int], float | None],
    other: Callable[[int], float | None],
    *,
    simpler: bool,
) -> Keep | Discard | None:
    """Run `one` and `other`, which return val_bpb at a seed, in turns at `seeds`, and judge `one` by these runs alone.

    It has passed once, so one in five without effect may pass here, not one in twenty: the two rates multiply where
    the first time was chance, and few true gains are lost. None where a run has no result.
    """
    judge = replace(judge, false_keep_rate=max(_RATE_AGAIN, judge.false_keep_rate))
    ours: list[float] = []
    theirs: list[float] = []
    for seed in seeds[: judge.max_seeds]:
        pair = one(seed), other(seed)
        if pair[0] is None or pair[1] is None:
            return None
        ours.append(pair[0])
        theirs.append(pair[1])
        action = judge.next(ours, theirs, simpler)
        if not isinstance(action, MoreSeeds):
            return action
    return None

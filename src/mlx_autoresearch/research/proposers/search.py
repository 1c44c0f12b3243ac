"""The built-in proposer: one small change of the current best at a time, chosen by Optuna from what has helped.

A night of keep-or-discard is not a search over whole configurations: almost all keys stay as the best has them. What is
searched is the next *move*: a key, and a step along its grid (or a value, where the values have no order). The first
move that is new and valid is proposed, in this order:

1. the same step again, if the change that was just kept was one step along an ordered key;
2. the three nearest misses of earlier bests, once each: with another best they may be worth more;
3. the declared moves, in their order; one whose words are not true of the best is left out;
4. the two most promising discards against this very best, together: two gains, each too small to detect alone, may be
   detectable together;
5. Optuna's TPE over moves. It sees a past experiment as a trial with the parameters `key` and `<key> step`, whose value
   is its val_bpb minus the best's of that time. Keys and directions that helped are proposed more often, and recent
   experiments count most. A move that lost is tried again from the same place only after a few keeps;
6. when Optuna has nothing new: the moves it left out, then two moves at once, those that lost least first.

A configuration is proposed once, however it is written. All of it follows from the ledger and the seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, create_trial

from mlx_autoresearch.config.load import settings_of
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.ledger.ledger import Record
from mlx_autoresearch.ledger.standing import near_misses
from mlx_autoresearch.plain_text import one_line
from mlx_autoresearch.trials.clock import NOBODYS

from ..guard.rules import is_frozen
from .base import Context, Proposal
from .neighbours import changes, in_words, neighbour, place, signature
from .settings import Dimension, Move, OptunaSettings

_STEPS = (-2, -1, 1, 2)  # along an ordered grid
_PATIENCE = 3  # keeps until a move that lost is worth another try
_FAILED = 1.0  # bits per byte worse than the best: what a crash counts as
_ASKS = 40
_NEAREST = 3  # near misses of earlier bests that are tried again
_AGAIN = "again: "


@dataclass(frozen=True)
class _Idea:
    """Values to set, and the words for it."""

    overrides: dict[str, Any]
    hypothesis: str
    kind: str


@dataclass(frozen=True)
class _Past:
    """A decided experiment, as this proposer sees it. moved: searched keys and their new values."""

    record: Record
    moved: dict[str, Any]
    before: dict[str, Any]
    gain: float  # bits per byte better than the best of that time


class SearchProposer:
    """See the module."""

    name = "search"
    trusted = True

    def __init__(self, settings: OptunaSettings, start: Config):
        self._space, self._moves, self._seed = settings.space, settings.moves, settings.seed
        self._start = settings_of(start)
        self._micro_tokens = start.train.device_batch_size * start.model.sequence_len
        self._configs: dict[str, dict[str, Any]] = {}  # by commit
        self._tried: set[str] = set()  # signatures
        self._past: list[_Past] = []
        self._trials: list[FrozenTrial] = []
        self._lost: dict[str, tuple[int, float]] = {}  # by transition: how many keeps there had been, and the gain
        self._keeps = 0
        self._level: float | None = None  # the best's latest val_bpb
        self._levels: dict[str, float] = {}  # of every best, by commit

    def propose(self, context: Context) -> Proposal | None:
        """The next change; None once every move and every two moves from this best have been tried."""
        best = settings_of(context.config)
        for idea in self._ideas(best, context):
            config = neighbour(best, idea.overrides, self._micro_tokens)
            if config is None or signature(config) in self._tried:
                continue
            overrides = changes(best, config)
            if not any(map(is_frozen, overrides)):
                return Proposal(idea.hypothesis, idea.kind, overrides)
        return None

    def told(self, record: Record) -> None:
        """Remember the configuration and what the move was worth; nothing where the machine was to blame."""
        if record.reason.startswith(tuple(f"{kind}: " for kind in NOBODYS)):
            return
        if record.event == "demote":
            self._forget_gain(record)
        if record.decides:
            before = self._configs.get(record.parent, self._start)
            values = before | record.overrides
            self._configs[record.commit] = values
            config = neighbour(values, {}, self._micro_tokens)
            if config is not None:
                self._tried.add(signature(config))
            if record.event == "experiment":
                self._learn(record, before)
        if record.status == "keep" and record.val_bpb is not None:
            self._level = self._levels[record.commit] = record.val_bpb

    def _forget_gain(self, demoted: Record) -> None:
        """An experiment that is no longer the best was worth nothing: its step is not gone on with."""
        for at, past in enumerate(self._past):
            if past.record.number == demoted.number:
                self._past[at] = replace(past, record=demoted, gain=0.0)
                self._lost[_transition(past.before, past.moved)] = self._keeps, 0.0
        self._level = self._levels.get(demoted.parent, self._level)

    def _learn(self, record: Record, before: dict[str, Any]) -> None:
        value, level = record.val_bpb, self._level
        gain = -_FAILED if value is None or level is None else level - value
        if record.status == "rejected":  # whatever it measured
            gain = min(gain, 0.0)
        moved = {k: v for k, v in record.overrides.items() if k in self._space and v != before.get(k)}
        self._past.append(_Past(record, moved, before, gain))
        if record.status == "keep":
            self._keeps += 1
        elif len(moved) == 1:
            self._lost[_transition(before, moved)] = self._keeps, gain
        for key, value in moved.items():
            step = self._step(key, before.get(key), value)
            if step in self._options(key):
                self._trials.append(
                    create_trial(
                        params={"key": key, f"{key} step": step},
                        distributions={
                            "key": CategoricalDistribution(list(self._space)),
                            f"{key} step": CategoricalDistribution(self._options(key)),
                        },
                        value=-gain,
                    )
                )

    def _ideas(self, best: Mapping[str, Any], context: Context) -> Iterator[_Idea]:
        yield from self._carried_on(best)
        said = {past.record.hypothesis for past in self._past}
        yield from self._missed_before(context, said)
        for move in self._moves:
            if one_line(move.hypothesis) not in said and (overrides := _values(move, best)):  # as the ledger has it
                yield _Idea(overrides, move.hypothesis, move.kind)
        yield from self._near_misses(context.best.commit)
        yield from (idea for idea in self._asked(best, context.number) if not self._lost_lately(best, idea))
        moves = [idea for key in self._space for option in self._options(key) for idea in self._idea(best, key, option)]
        moves.sort(key=lambda idea: -self._worth(best, idea))
        yield from (idea for idea in moves if not self._lost_lately(best, idea))
        yield from self._pairs(moves)

    def _carried_on(self, best: Mapping[str, Any]) -> Iterator[_Idea]:
        past = self._past[-1] if self._past else None
        if past is None or past.record.status != "keep" or len(past.moved) != 1:
            return
        [(key, value)] = past.moved.items()
        if self._space[key].ordered:
            yield from self._idea(best, key, self._step(key, past.before.get(key), value))

    def _missed_before(self, context: Context, said: set[str]) -> Iterator[_Idea]:
        """Near misses of earlier bests that have not been tried again, nor are a second try themselves."""
        first = (r for r in near_misses(context.history) if r.overrides and not r.hypothesis.startswith(_AGAIN))
        for record in islice(first, _NEAREST):
            if (hypothesis := one_line(_AGAIN + record.hypothesis)) not in said:
                yield _Idea(dict(record.overrides), hypothesis, record.kind)

    def _near_misses(self, commit: str) -> Iterator[_Idea]:
        """The two most promising discards against the best, if both were better than it."""
        near = [p for p in self._past if p.record.parent == commit and p.gain > 0 and len(p.moved) == 1]
        near.sort(key=lambda past: -past.gain)
        ideas = [_Idea(past.moved, past.record.hypothesis, past.record.kind) for past in near]
        yield from islice(self._pairs(ideas), 1)

    def _pairs(self, ideas: list[_Idea]) -> Iterator[_Idea]:
        """Two ideas about different keys at once, the first of the list first."""
        for later, other in enumerate(ideas):
            for one in ideas[:later]:
                if one.overrides.keys() != other.overrides.keys():
                    kind = one.kind if one.kind == other.kind else "combination"
                    yield _Idea(one.overrides | other.overrides, f"both: {_brief(one)}; {_brief(other)}", kind)

    def _asked(self, best: Mapping[str, Any], number: int) -> Iterator[_Idea]:
        sampler = TPESampler(seed=(self._seed * 1_000_003 + number) % 2**32, n_startup_trials=0)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(sampler=sampler)
        study.add_trials(self._trials)
        for _ in range(_ASKS):
            trial = study.ask()
            key = trial.suggest_categorical("key", list(self._space))
            yield from self._idea(best, key, trial.suggest_categorical(f"{key} step", self._options(key)))

    def _lost_lately(self, best: Mapping[str, Any], idea: _Idea) -> bool:
        lost = self._lost.get(_transition(best, idea.overrides))
        return lost is not None and self._keeps - lost[0] < _PATIENCE

    def _worth(self, best: Mapping[str, Any], idea: _Idea) -> float:
        """What the move gained when it was last tried, bits per byte; 0 when it was not."""
        return self._lost.get(_transition(best, idea.overrides), (0, 0.0))[1]

    def _idea(self, best: Mapping[str, Any], key: str, option: int) -> Iterator[_Idea]:
        """The move of one key, if the grid goes that far."""
        dimension, old = self._space[key], best.get(key)
        at = place(dimension, old) + option if dimension.ordered else option
        if 0 <= at < len(dimension.values) and dimension.values[at] != old:
            new = dimension.values[at]
            yield _Idea({key: new}, in_words(key, old, new, dimension), dimension.kind)

    def _options(self, key: str) -> list[int]:
        """Steps along an ordered grid, else the places of all values."""
        dimension = self._space[key]
        return list(_STEPS) if dimension.ordered else list(range(len(dimension.values)))

    def _step(self, key: str, old: Any, new: Any) -> int:
        dimension: Dimension = self._space[key]
        at = place(dimension, new)
        return max(_STEPS[0], min(_STEPS[-1], at - place(dimension, old))) if dimension.ordered else at


def _values(move: Move, best: Mapping[str, Any]) -> dict[str, Any]:
    """What a declared move sets; nothing where it multiplies what is no number, or a whole one to a broken one."""
    values = dict(move.overrides)
    for key, factor in move.times.items():
        old = best.get(key)
        if isinstance(old, bool) or not isinstance(old, int | float):
            return {}
        new = float(f"{old * factor:.6g}")
        if isinstance(old, int) and not new.is_integer():
            return {}
        values[key] = int(new) if isinstance(old, int) else new
    return values


def _brief(idea: _Idea) -> str:
    return idea.hypothesis.partition(":")[0]


def _transition(best: Mapping[str, Any], overrides: Mapping[str, Any]) -> str:
    return json.dumps([[key, best.get(key), value] for key, value in overrides.items()])

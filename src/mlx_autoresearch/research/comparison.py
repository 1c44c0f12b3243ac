"""Whether a candidate is better than the best: trained until that is decided, in turns where the machine may explain
the gain, and confirmed on other text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlx_autoresearch.ledger.ledger import Trial
from mlx_autoresearch.training.files import CHECKPOINT

from . import confirmation, turns
from .candidate import Candidate
from .champion import Champion
from .decision import Discard, Judge, Keep
from .editable import EXPERIMENT
from .home import Search
from .measure import measure
from .view import View


class NotConfirmed(Exception):
    """A gain did not carry over to other text; the message says so, and no more."""


class Comparison:
    """Of one candidate with the champion.

    trials: the candidate's so far. confirmed: what other text has said of a keep; None where it was not asked.
    simpler: kept as equal, with less code.
    """

    def __init__(
        self,
        search: Search,
        champion: Champion,
        view: View,
        candidate: Candidate,
        *,
        overrides: Mapping[str, Any],
        folder: Path,
        name: str,
        hypothesis: str,
    ):
        """overrides: settings that the candidate changes. folder: for its runs. name, hypothesis: for the view."""
        self._search, self._champion, self._view, self._candidate = search, champion, view, candidate
        self._overrides, self._folder, self._name, self._hypothesis = overrides, folder, name, hypothesis
        self.trials: list[Trial] = []
        self.confirmed: bool | None = None
        self.simpler = False

    def decide(self) -> Keep | Discard:
        """Train the candidate until the decision is made, and confirm a keep. Raises TrialFailed, NotConfirmed."""
        judge = self._champion.judge()
        simpler = self._is_simpler()
        action = self._compare(judge, simpler)
        if isinstance(action, Keep) and self._may_be_the_machines():
            action = self._in_turns(judge, simpler)
        if isinstance(action, Keep) and action.margin:
            earned = self._champion.earned_values()
            if earned is not None and not judge.is_equal([t.val_bpb for t in self.trials], earned):
                return Discard("equal to the best, but not to the last experiment that was kept for a gain")
        if isinstance(action, Discard):
            return action
        self.simpler = bool(action.margin)
        return self._confirmed_keep(action)

    def _is_simpler(self) -> bool:
        """Whether it has less code, and changes no settings but the recipe's own, which go with the code.

        Settings that change in passing would be kept unmeasured, a little further each time.
        """
        others = [key for key in self._overrides if not key.startswith("recipe.")]
        return not others and self._search.workspace.has_less_code(
            self._champion.record.commit, self._candidate.commit, self._candidate.change
        )

    def _compare(self, judge: Judge, simpler: bool) -> Keep | Discard:
        """Train the candidate at the seeds of the best until the decision is made."""
        trials, wanted = self.trials, 1
        while True:
            while len(trials) < wanted:
                paired, _ = self._champion.values()
                if len(trials) >= len(paired):  # the best has not been measured at this seed
                    self._champion.extend()
                    paired, _ = self._champion.values()
                    if len(trials) >= len(paired):
                        return Discard("undecided, and the best cannot be measured at another seed")
                self._train(list(paired)[len(trials)])
            paired, others = self._champion.values()
            action = judge.next([t.val_bpb for t in trials], [*paired.values(), *others], simpler)
            if isinstance(action, Keep | Discard):
                return action
            wanted += action.n

    def _train(self, seed: int) -> Trial:
        self._view.doing(f"{self._name}, seed {seed}: {self._hypothesis}")
        self.trials.append(measure(self._search, self._candidate, seed, self._folder, self._view))
        return self.trials[-1]

    def _costs_the_same(self) -> bool:
        """Whether a step of the candidate is known to cost what a step of the best costs."""
        code_changed = not self._candidate.change.status.keys() <= {EXPERIMENT}
        return turns.same_cost(self._overrides, code_changed=code_changed)

    def _may_be_the_machines(self) -> bool:
        """Whether a quieter machine may explain the gain: in a time budget, where a step may cost something else, so
        that steps say nothing, or where the candidate made more of them than the best.
        """
        if self._search.config.decision.greedy or not turns.by_time(self._candidate.config):
            return False
        best, records = list(self._champion.trials().values()), self._search.ledger.records()
        more = turns.more_done(self.trials, best, records, self._search.config.seeds)
        return more or not self._costs_the_same()

    def _in_turns(self, judge: Judge, simpler: bool) -> Keep | Discard:
        """Decide anew, by runs of the candidate and the best right after each other, at new seeds."""
        seeds = self._champion.new_window()
        first = len(self.trials)
        best: list[Trial] = []

        def best_at(seed: int) -> float | None:
            best.extend(again := self._champion.measure_again([seed]))
            return again[0].val_bpb if again else None

        def candidate_at(seed: int) -> float:
            return self._train(seed).val_bpb

        action = turns.in_turns(judge, seeds, candidate_at, best_at, simpler=simpler)
        if action is None:
            return Discard("undecided, and the best cannot be measured at another seed")
        records = self._search.ledger.records()
        steady = not turns.more_done(self.trials[first:], best, records, self._search.config.seeds)
        if isinstance(action, Keep) and self._costs_the_same() and not steady:
            return Discard("made more steps than the best at the same cost, in turns too: the machine was not steady")
        return replace(action, reason=f"in turns with the best: {action.reason}")

    def _confirmed_keep(self, keep: Keep) -> Keep:
        """The keep, once fresh text has said yes, where there is any. Raises NotConfirmed for a no, and TrialFailed."""
        if not (text := confirmation.text_of(self._search)):
            return keep
        pairs, models = self._pairs(), (self._candidate, self._champion.candidate)
        self._view.doing(f"{self._name}: confirming it on other text")
        answer = confirmation.carries_over(
            self._search, text, models, pairs, self._folder, self._view, margin=keep.margin
        )
        self.confirmed = answer
        if answer is False:
            raise NotConfirmed(confirmation.NO)
        return replace(keep, reason=f"{keep.reason}; {confirmation.YES}") if answer else keep

    def _pairs(self) -> list[tuple[Trial, Trial]]:
        """The candidate's trials that decided, and the best's with the same seeds."""
        paired, _ = self._champion.values()
        best = self._champion.trials()
        for seed in [t.seed for t in self.trials if t.seed in paired]:
            if not (self._search.home / best[seed].run / CHECKPOINT).is_file():  # somebody made room on the disk
                self._champion.measure_again([seed])
        best = self._champion.trials()
        return [(t, best[t.seed]) for t in self.trials if t.seed in paired]

"""One process at work on a sweep: takes a point from the queue, trains it with every seed, writes down the result."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, replace
from datetime import UTC
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import RunFailed, UserError
from mlx_autoresearch.ledger.files import LEDGER, point_folder
from mlx_autoresearch.ledger.ledger import Ledger, Record, Trial
from mlx_autoresearch.plain_text import duration, one_line
from mlx_autoresearch.training.data import find_data
from mlx_autoresearch.training.files import CHECKPOINT
from mlx_autoresearch.trials.clock import DISK, Event
from mlx_autoresearch.trials.limits import Limits
from mlx_autoresearch.trials.trial import TrialFailed, run_trial, status_of

from .spec import config_at, describe
from .study import Queue
from .view import View

_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_LONGEST_DETAIL = 400  # characters of a failure that the study keeps
_REPORT_EVERY = 5  # percent of the budget between two looks at the pruner


class Worker:
    """Works through the queue until nothing waits in it, and shows in `view` what it does."""

    def __init__(self, queue: Queue, view: View):
        self.queue, self.view = queue, view
        self.ledger = Ledger(queue.home / LEDGER)

    def run(self) -> None:
        """Raises KeyboardInterrupt when stopped, with what was begun back in the queue."""
        if surplus := self.queue.surplus():
            self.view.say(
                f"note: trials is {self.queue.sweep.trials} now, and {surplus} more were queued before: "
                "they are tried as well"
            )
        dead = self.queue.requeue_dead()
        if dead:
            self.view.say(f"{dead} point{'s' * (dead > 1)} of a process that has died will be measured again")
        while self.queue.count(TrialState.WAITING):
            self.queue.next_sampler()
            try:
                self.queue.study.optimize(self._try, n_trials=1, catch=(TrialFailed, UserError))
            finally:
                self.queue.release()
            self._write_down()
        self._write_down()

    def _try(self, point: optuna.Trial) -> float:
        if "point" not in point.user_attrs:  # another process was faster, and the queue empty
            raise optuna.TrialPruned
        self.queue.take(point)
        try:
            return self._measure(point)
        except (TrialFailed, UserError) as error:
            if isinstance(error, TrialFailed) and error.kind == DISK:  # not the point's fault
                self._give_back(point)
                raise RunFailed(f"{one_line(error.detail)}: make room; run the same command to continue") from None
            kind, detail = (error.kind, error.detail) if isinstance(error, TrialFailed) else ("rejected", str(error))
            point.set_user_attr("failure", {"kind": kind, "detail": detail.split("\n")[0][:_LONGEST_DETAIL]})
            raise
        except optuna.TrialPruned:
            raise
        except BaseException:  # stopped, or the disk is full: not the point's fault
            self._give_back(point)
            raise

    def _give_back(self, point: optuna.Trial) -> None:
        self.queue.queue_again(self.queue.study.get_trials(deepcopy=False)[point.number])

    def _measure(self, point: optuna.Trial) -> float:
        values = self.queue.suggest(point)
        point.set_user_attr("values", values)
        config = config_at(self.queue.sweep, values)
        folder = point_folder(self.queue.home, point.number)
        shutil.rmtree(folder, ignore_errors=True)
        done: list[dict[str, Any]] = []
        for index, seed in enumerate(self.queue.sweep.seeds):
            watch = _Watch(point, config, self.view, prune=index == 0 and self.queue.sweep.prune is not None)
            run = folder / str(seed)
            result = run_trial(config, seed=seed, folder=run, code=None, limits=Limits(), say=watch.follow)
            if not math.isfinite(result.val_bpb):
                raise TrialFailed("nan", "val_bpb is not a number")
            done.append(asdict(replace(result, run=str(run.relative_to(self.queue.home)))))
            point.set_user_attr("runs", done)
        return sum(r["val_bpb"] for r in done) / len(done)

    def _write_down(self) -> None:
        """Bring the ledger up to what the study knows, whoever ran it, and keep the best's checkpoints alone."""
        with self.queue.lock:
            known = {r.number for r in self.ledger.read()}  # other processes append, too
            points = [p for p in self.queue.points() if p.state in _ENDED]
            points.sort(key=lambda p: (p.datetime_complete or p.datetime_start, p.number))
            best = math.inf
            for point in points:
                value = point.value if point.state is TrialState.COMPLETE else None
                won = value is not None and value < best
                if point.number not in known:
                    self.ledger.append(to_record(point, best, won, self.queue.sweep.method))
                    self.view.say(self._line(point, best, won))
                best = min(best, math.inf if value is None else value)
            complete = {p.number: p.value for p in points if p.state is TrialState.COMPLETE and p.value is not None}
            winner = min(complete, key=complete.__getitem__, default=None)
            for point in points:
                if point.number != winner:
                    for checkpoint in point_folder(self.queue.home, point.number).glob(f"*/{CHECKPOINT}"):
                        checkpoint.unlink(missing_ok=True)

    def _line(self, point: FrozenTrial, best: float, won: bool) -> str:
        done, total = self.queue.count(*_ENDED), len(self.queue.points())
        values = describe(point.user_attrs.get("values", point.params))
        if point.state is TrialState.COMPLETE:
            result = f"val_bpb {point.value:.4f}" + (" (best)" if won else f" (best {best:.4f})")
        elif point.state is TrialState.PRUNED:
            result = f"stopped at {max(point.intermediate_values, default=0)}%, above the median"
        else:
            failure = point.user_attrs.get("failure", {})
            result = f"failed: {failure.get('kind', 'it')}: {failure.get('detail', 'was given up')}"
        left = self.seconds_left()
        rest = "" if left is None or done == total else f"; about {duration(left)} left"
        return f"[{done}/{total}] {values}: {result}{rest}"

    def seconds_left(self) -> float | None:
        """An estimate from what the points took so far, over the processes at work."""
        points = self.queue.points()
        took = [
            (p.datetime_complete - p.datetime_start).total_seconds()
            for p in points
            if p.state in _ENDED and p.datetime_start and p.datetime_complete and "values" in p.user_attrs
        ]
        to_do = sum(not p.state.is_finished() for p in points)
        workers = max(1, sum(p.state is TrialState.RUNNING for p in points))
        return to_do * sum(took) / len(took) / workers if took else None


class _Watch:
    """Follows a trial of a point while it runs, and ends it where the pruner says so.

    What is compared is the smoothed training loss in bits per byte, at equal shares of the budget.
    """

    def __init__(self, point: optuna.Trial, config: Config, view: View, *, prune: bool):
        self.point, self.config, self.view, self.prune = point, config, view, prune
        self._reported = 0
        self._bits = bits_per_nat(config) if prune else 1.0
        self._label = describe(point.user_attrs.get("values", {}))

    def follow(self, event: Event) -> None:
        """For `run_trial`, which ends its processes when this raises. Raises optuna.TrialPruned."""
        if event["event"] in ("waiting", "again"):
            self.view.say(event["message"])
        if event["event"] != "step":
            return
        share = self._share(event)
        self.view.live(self._label, share)
        percent = int(100 * share) // _REPORT_EVERY * _REPORT_EVERY
        if self.prune and percent > self._reported and percent < 100:
            self._reported = percent
            self.point.report(float(event["loss"]) * self._bits, percent)
            if self.point.should_prune():
                raise optuna.TrialPruned

    def _share(self, event: Event) -> float:
        train = self.config.train
        if train.max_steps is not None:
            return min(event["step"] / train.max_steps, 1.0)
        return min(max(1 - event["remaining"] / train.time_budget, 0.0), 1.0)


def bits_per_nat(config: Config) -> float:
    """What turns nats a token into bits a byte, on average over the training text."""
    split = find_data(config).manifest.splits["train"]
    return (split.tokens - split.documents) / split.bytes / math.log(2)


def to_record(point: FrozenTrial, best: float, won: bool, method: str) -> Record:
    """A point as the ledger has it; `best` is the lowest val_bpb before it."""
    runs = [Trial(**run) for run in point.user_attrs.get("runs", [])]
    values = point.user_attrs.get("values", point.params)
    failure = point.user_attrs.get("failure", {"kind": "exception", "detail": "given up"})
    end, start = point.datetime_complete, point.datetime_start
    if point.state is TrialState.COMPLETE:
        status = "keep" if won else "discard"
        reason = "the best so far" if won else f"the best is {best:.4f}"
    elif point.state is TrialState.PRUNED:
        status, reason = "discard", f"stopped at {max(point.intermediate_values, default=0)}%: loss above the median"
    else:
        status = "rejected" if failure["kind"] == "rejected" else status_of(failure["kind"])
        reason = f"{failure['kind']}: {failure['detail']}"
    return Record(
        number=point.number,
        event="experiment",
        time="" if end is None else end.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        commit="",
        parent="",
        hypothesis=describe(values),
        proposer=f"sweep:{method}",
        kind="",
        files=[],
        insertions=0,
        deletions=0,
        overrides=dict(values),
        trials=runs,
        val_bpb=point.value if point.state is TrialState.COMPLETE else None,
        status=status,
        reason=reason,
        seconds=(end - start).total_seconds() if end and start else 0.0,
    )

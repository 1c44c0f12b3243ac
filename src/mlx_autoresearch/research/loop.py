"""The loop of a search: one experiment after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mlx_autoresearch.errors import ReportedError, RunFailed
from mlx_autoresearch.ledger.files import TRACEBACK
from mlx_autoresearch.ledger.held import HeldFile
from mlx_autoresearch.ledger.ledger import Record
from mlx_autoresearch.machine.awake import awake
from mlx_autoresearch.machine.disk import disk_error

from .champion import Champion
from .confirmation import announce
from .experiment import Experiment
from .fault import MOST, described, require_progress, trace
from .guard.integrity import check_same, check_since_start, trusted_state
from .home import Search
from .proposers.base import Proposer
from .view import View

T = TypeVar("T")


def run(search: Search, proposer: Proposer, view: View, *, experiments: int | None = None) -> None:
    """Run to the end: until `experiments` more, the settings' own limits, or a proposer that has no more.

    proposer: a new one, which is told the ledger's records first. Raises UserError when another process runs this
    search or something it relies on has changed, RunFailed when the starting point cannot be trained, or an error of
    our own comes back again and again.
    """
    search.disks.say = view.say
    with search.locked(), awake(view.say):
        for change in search.changed:
            view.say(f"note: {change}")
        trusted = _again(search, lambda: _begin(search))
        announce(search, view)
        champion = _again(search, lambda: Champion(search, view))
        if not search.ledger.records():
            _again(search, champion.measure_baseline)
        audience = _Audience(proposer, search)
        done = 0
        while not _finished(search, done, experiments):
            record = _again(search, lambda: _next(search, champion, audience, view, trusted))
            if record is None:
                view.say("the proposer has nothing more to propose")
                break
            require_progress(search, proposer)
            done += 1


def _begin(search: Search) -> dict[str, str]:
    """Put right what the last process left; the state of what results depend on."""
    search.recover()
    trusted = check_since_start(search)
    search.hold()
    return trusted


class _Audience:
    """A proposer, which is told every record of the ledger once. What it cannot understand, it does not learn from."""

    def __init__(self, proposer: Proposer, search: Search):
        self.proposer, self._search = proposer, search
        self._told = 0

    def catch_up(self) -> None:
        """Tell it what it has not been told."""
        for record in self._search.ledger.records()[self._told :]:
            self._told += 1
            try:
                self.proposer.told(record)
            except Exception as error:
                what = f"{record.event} {record.number}: {described(error)}"
                self._search.disks.say(f"the proposer does not learn from {what}")


def _next(
    search: Search, champion: Champion, audience: _Audience, view: View, trusted: dict[str, str]
) -> Record | None:
    """The next experiment; None when there is none."""
    check_same(trusted, trusted_state(search.config))
    search.untrusted_code_ran = False
    champion.refresh()
    audience.catch_up()
    return Experiment(search, champion, audience.proposer, view).conduct(trusted)


def _again(search: Search, action: Callable[[], T]) -> T:
    """Do `action`, and again from its start when something has ended it, with what it left behind taken away.

    Waits for a full disk. Raises RunFailed of `action` at once, the first UserError when a second one comes, and
    RunFailed where the action ends in other errors again and again.
    """
    search.disturbed, first = 0, None
    while True:
        search.disks.wait()
        try:
            if search.disturbed:
                search.renew()
            return action()
        except (BrokenPipeError, RunFailed):  # nobody reads our output any more; there can be no result
            raise
        except Exception as error:
            full = search.disks.trouble()
            search.make_room()
            search.disturbed += 1
            if full and search.disks.trouble():
                search.disturbed = 1
            elif isinstance(error, ReportedError) and not disk_error(error):
                if first is not None:
                    raise first from None
                first = error
            elif search.disturbed > MOST:
                place = search.home / TRACEBACK
                HeldFile(place).write(trace(error).encode(errors="replace"))
                what = f"{described(error)}, {search.disturbed} times in a row"
                raise RunFailed(f"the search cannot go on: {what}; {place} says where: please report it") from error


def _finished(search: Search, done: int, experiments: int | None) -> bool:
    records = search.ledger.records()
    total = sum(r.event == "experiment" for r in records)
    spent = sum(r.seconds for r in records)
    config = search.config
    return (
        (experiments is not None and done >= experiments)
        or (config.experiments is not None and total >= config.experiments)
        or (config.hours is not None and spent >= 3600 * config.hours)
    )

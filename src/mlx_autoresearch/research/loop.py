"""The loop of a search: one experiment after the other."""

from __future__ import annotations

from mlx_autoresearch.machine.awake import awake

from .champion import Champion
from .experiment import Experiment
from .guard.integrity import check_same, check_since_start, trusted_state
from .home import Search
from .proposers.base import Proposer
from .view import View


def run(search: Search, proposer: Proposer, view: View, *, experiments: int | None = None) -> None:
    """Run to the end: until `experiments` more, the settings' own limits, or a proposer that has no more.

    proposer: a new one, which is told the ledger's records first. Raises UserError when another process runs this
    search or something it relies on has changed, RunFailed when the starting point cannot be trained.
    """
    with search.locked(), awake(view.say):
        search.recover()
        trusted = check_since_start(search)
        search.hold()
        champion = Champion(search, view)
        if not search.ledger.records():
            champion.measure_baseline()
        for record in search.ledger.records():
            proposer.told(record)
        done = 0
        while not _finished(search, done, experiments):
            check_same(trusted, trusted_state(search.config))
            search.untrusted_code_ran = False
            champion.refresh()
            record = Experiment(search, champion, proposer, view).conduct(trusted)
            if record is None:
                view.say("the proposer has nothing more to propose")
                break
            proposer.told(record)
            done += 1


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

"""Whose fault an error is that nobody foresaw: the machine's, or else that of the proposal, or of this program."""

from __future__ import annotations

import time
import traceback

from mlx_autoresearch.errors import ReportedError, RunFailed
from mlx_autoresearch.ledger.files import TRACEBACK
from mlx_autoresearch.machine.device import require_working
from mlx_autoresearch.machine.disk import disk_error
from mlx_autoresearch.machine.standstill import Standstill
from mlx_autoresearch.plain_text import one_line

from .editable import EXPERIMENT
from .home import Search
from .proposers.base import Proposer

INTERNAL = "internal error"  # how the reason of such a record begins
MOST = 3  # times in a row that the same may happen
_REST_SECONDS = 60.0


class Disturbed(Exception):
    """The machine's fault: the experiment is made again, as if it had not begun."""


def require_sound(search: Search, commit: str, error: Exception) -> None:
    """Return where the machine is well, so that `error` is the proposal's fault, or ours.

    commit: the best's, on which the branch stands afterwards. Raises Disturbed for a disk that takes no more, RunFailed
    for a lost device, and for a repository that is broken `error`, where it is a user's line, or what git says.
    """
    if disk_error(error) and _may_be_the_machines(search):
        raise Disturbed(one_line(str(error), 400)) from error
    require_calm(search)
    search.restore()
    try:
        search.workspace.keep(commit)
        search.workspace.read(commit, EXPERIMENT)
    except ReportedError as broken:
        raise (error if isinstance(error, ReportedError) else broken) from None
    require_working()


def require_calm(search: Search, standstill: Standstill | None = None) -> None:
    """Raise Disturbed where a disk takes no more, or the machine stood still."""
    if _may_be_the_machines(search) and ((standstill and standstill.seconds) or search.disks.trouble()):
        raise Disturbed("the disk is full, or the machine stood still")


def _may_be_the_machines(search: Search) -> bool:
    """Not where untrusted code has run, and it has come again and again: the machine was well whenever it began."""
    return search.disturbed < MOST or not search.untrusted_code_ran


def described(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, ReportedError | Disturbed):
        return one_line(str(error), 400)
    return f"{INTERNAL}: {type(error).__name__}: {one_line(str(error), 400)}".rstrip(": ")


def trace(error: Exception) -> str:
    """Its traceback, for a bug report."""
    return "".join(traceback.format_exception(error))


def require_progress(search: Search, proposer: Proposer) -> None:
    """Where the last experiments all ended in the same internal error: raise RunFailed, or let an agent wait a minute.

    An agent may have caused it, and must not end the search by that.
    """
    last = [record.reason for record in search.ledger.records()[-MOST:]]
    if len(last) < MOST or len(set(last)) > 1 or not last[0].startswith(INTERNAL):
        return
    if proposer.trusted:
        number = search.next_number() - 1
        raise RunFailed(
            f"{MOST} experiments in a row ended in the same {last[0]}; {search.folder(number) / TRACEBACK} says where: "
            "please report it"
        )
    time.sleep(_REST_SECONDS)

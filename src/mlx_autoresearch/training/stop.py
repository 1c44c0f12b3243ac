"""Requests to stop, by signal: the first one is a flag that is read between steps, the second one acts at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Inside, SIGINT, SIGTERM and SIGHUP only set the flag that is yielded; a second one raises KeyboardInterrupt.

    Outside the main thread, which alone may install handlers, the flag is never set.
    """
    requested = False
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def handler(number: int, frame: object) -> None:
        nonlocal requested
        if requested:
            raise KeyboardInterrupt("stopped at once; the last checkpoint is kept")
        requested = True

    # What was ignored stays so: nohup does that to SIGHUP, a shell to the SIGINT of a job in the background.
    previous = {s: signal.signal(s, handler) for s in STOPS if signal.getsignal(s) is not signal.SIG_IGN}
    try:
        yield lambda: requested
    except RuntimeError as error:
        if requested:  # the terminal's Ctrl-C also ends the g++ that MLX compiles with, and MLX then fails
            raise KeyboardInterrupt("stopped while compiling; what was saved before is kept") from error
        raise
    finally:
        for number, old in previous.items():
            signal.signal(number, old)

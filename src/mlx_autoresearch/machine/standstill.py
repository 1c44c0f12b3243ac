"""Notices that this process, and most likely the whole machine, stood still: stopped, frozen, or without a processor.

A machine that sleeps is not noticed, and need not be: Python's monotonic clocks stand still with it.
"""

from __future__ import annotations

import threading
import time
from typing import Self

_TICK, _LONGEST = 0.1, 1.0  # seconds between two looks at the clock; what comes later than that was a standstill


class Standstill:
    """Inside the context, a thread looks at the clock all the time. seconds: for which it could not, so far."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._over = threading.Event()
        self._last = time.monotonic()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._last = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        over = False
        while not over:
            over = self._over.wait(_TICK)
            now = time.monotonic()
            if now - self._last > _LONGEST:
                self.seconds += now - self._last
            self._last = now

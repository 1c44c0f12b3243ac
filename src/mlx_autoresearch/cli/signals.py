"""Signals that stop a command wait while C extensions are imported."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from mlx_autoresearch.training.stop import STOPS


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Signals wait while C extensions are imported: some swallow the KeyboardInterrupt."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

from __future__ import annotations

import os
import signal
import threading

import pytest

from mlx_autoresearch.training.stop import stop_requested

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("number", STOPS, ids=lambda s: s.name)
def test_the_first_request_is_a_flag_and_the_second_acts_at_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt, match="stopped at once"), stop_requested() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requested() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_compiler_that_was_stopped_too_is_no_failure_of_mlx() -> None:
    with pytest.raises(KeyboardInterrupt, match="while compiling"), stop_requested():
        os.kill(os.getpid(), signal.SIGINT)
        raise RuntimeError("g++ failed")
    with pytest.raises(RuntimeError, match="g\\+\\+ failed"), stop_requested():
        raise RuntimeError("g++ failed")


def test_another_thread_installs_no_handler() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def inside() -> None:
        with stop_requested() as stop:
            seen.append((stop(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [(False, before)]

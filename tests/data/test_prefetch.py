from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest

from mlx_autoresearch.data.packing import PackedBatches
from mlx_autoresearch.data.prefetch import Prefetcher


class Counter:
    """0, 1, 2, …; `before(n)` runs before n is made."""

    def __init__(self, before: Callable[[int], object] = lambda n: None) -> None:
        self.made = 0
        self.before = before

    def __next__(self) -> int:
        self.before(self.made)
        self.made += 1
        return self.made - 1

    def state_dict(self) -> dict[str, Any]:
        return {"made": self.made}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "waited 5 seconds in vain"
        time.sleep(0.001)


def test_items_come_in_order_from_another_thread() -> None:
    threads = set()
    with Prefetcher(Counter(lambda n: threads.add(threading.get_ident()))) as items:
        assert list(islice(items, 50)) == list(range(50))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("depth", [1, 3])
def test_works_ahead_by_exactly_depth(depth: int) -> None:
    counter = Counter()
    with Prefetcher(counter, depth=depth) as items:
        wait_until(lambda: counter.made == depth)
        next(items)
        wait_until(lambda: counter.made == depth + 1)
        time.sleep(0.02)
        assert counter.made == depth + 1


def test_an_exception_reaches_the_consumer_at_its_item() -> None:
    def fail_at_three(n: int) -> None:
        if n == 3:
            raise ZeroDivisionError("item three")

    with Prefetcher(Counter(fail_at_three), depth=5) as items:
        assert list(islice(items, 3)) == [0, 1, 2]
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match="item three"):
                next(items)
        assert items.state_dict() == {"made": 3}


def test_a_finite_iterator_ends() -> None:
    def stop_at_four(n: int) -> None:
        if n == 4:
            raise StopIteration

    with Prefetcher(Counter(stop_at_four)) as items:
        assert list(items) == [0, 1, 2, 3]


def test_state_counts_what_was_consumed() -> None:
    counter = Counter()
    with Prefetcher(counter, depth=4) as items:
        wait_until(lambda: counter.made == 4)
        assert items.state_dict() == {"made": 0}
        next(items)
        assert items.state_dict() == {"made": 1}


def test_restored_stream_goes_on_with_the_exact_next_row() -> None:
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 40, 200))])
    tokens = np.arange(offsets[-1], dtype=np.uint16)

    def packed() -> PackedBatches:
        return PackedBatches(tokens, offsets, batch_size=2, sequence_len=16, buffer_size=20, refill_batch=8)

    expected = [batch.inputs.tolist() for batch in islice(packed(), 40)]
    with Prefetcher(packed(), depth=3) as stream:
        assert [batch.inputs.tolist() for batch in islice(stream, 17)] == expected[:17]
        state = stream.state_dict()
    restored = packed()
    restored.load_state_dict(state)
    with Prefetcher(restored, depth=3) as stream:
        assert [batch.inputs.tolist() for batch in islice(stream, 23)] == expected[17:]


def test_close_joins_the_thread_and_is_final() -> None:
    before = threading.active_count()
    items = Prefetcher(Counter())
    next(items)
    items.close()
    items.close()
    assert threading.active_count() == before
    with pytest.raises(ValueError, match="close"):
        next(items)


def test_ctrl_c_while_waiting_loses_no_item() -> None:
    release = threading.Event()
    with Prefetcher(Counter(lambda n: release.wait() if n == 1 else None)) as items:
        assert next(items) == 0
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            next(items)
        release.set()
        assert list(islice(items, 3)) == [1, 2, 3]


def test_an_unclosed_prefetcher_does_not_hang_the_interpreter() -> None:
    code = (
        "import itertools\n"
        "from mlx_autoresearch.data.prefetch import Prefetcher\n"
        "class Endless(itertools.count):\n"
        "    def state_dict(self): return {}\n"
        "print(next(Prefetcher(Endless(7))))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (done.stdout, done.stderr, done.returncode) == ("7\n", "", 0)


def test_depth_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="depth"):
        Prefetcher(Counter(), depth=0)

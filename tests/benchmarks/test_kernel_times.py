"""How the time of kernels that run side by side is shared out among them."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from kernel_times import shared_out


def test_side_by_side_each_kernel_has_its_part() -> None:
    found = shared_out([("a", 10, 6), ("b", 12, 2), ("a", 20, 5), ("c", 25, 1)], steps=1)
    assert found.wall == 16 and found.idle == 4  # from 16 to 20 nothing runs
    assert {name: (t.calls, t.total, t.exclusive) for name, t in found.kernels.items()} == {
        "a": (2, 11, 10),  # 10-12 alone, 12-14 with b, 14-16 and 20-25 alone
        "b": (1, 2, 1),
        "c": (1, 1, 1),
    }


def test_exclusive_shares_add_up_to_the_time_that_the_gpu_was_busy() -> None:
    rng = random.Random(0)
    intervals = [(rng.choice("abcd"), rng.uniform(0, 100), rng.expovariate(0.3)) for _ in range(200)]
    found = shared_out(intervals, steps=1)
    exclusive = sum(times.exclusive for times in found.kernels.values())
    assert exclusive == pytest.approx(found.wall - found.idle)
    begin, end = min(b for _, b, _ in intervals), max(b + d for _, b, d in intervals)
    assert found.wall == pytest.approx(end - begin)
    assert sum(times.total for times in found.kernels.values()) == pytest.approx(sum(d for *_, d in intervals))


def test_the_table_has_the_largest_first_and_nothing_is_a_table_too() -> None:
    lines = shared_out([("small", 0, 1), ("large", 1, 9)], steps=2).text().splitlines()
    assert lines[0].startswith("2 steps: 10 us from the first kernel to the last, busy 10, idle gaps 0 (0.0%); 2 calls")
    assert [line.split()[-1] for line in lines[2:]] == ["large", "small"]
    assert len(shared_out([], steps=1).text().splitlines()) == 2

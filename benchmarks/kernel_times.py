"""The kernels that a piece of work runs on an NVIDIA GPU, MLX's or PyTorch's: recorded by CUPTI through torch.profiler.

Kernels run side by side, in CUDA graphs above all, so their times add up to more than the time that passed. A moment in
which k of them run counts 1/k for each here: these exclusive shares add up to the time in which the GPU was busy.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

_ON_THE_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")  # categories of torch.profiler's trace
_NAME = 90  # characters


@dataclass
class Times:
    """Microseconds of all kernels of one name."""

    calls: int = 0
    total: float = 0.0
    exclusive: float = 0.0


@dataclass
class Profile:
    """Of `steps` optimizer steps, in microseconds. wall: from the first begin to the last end; idle: nothing ran."""

    steps: int
    wall: float = 0.0
    idle: float = 0.0
    kernels: dict[str, Times] = field(default_factory=dict)

    def text(self) -> str:
        """A table, the largest exclusive share first."""
        busy, total = self.wall - self.idle, sum(times.total for times in self.kernels.values())
        calls = sum(times.calls for times in self.kernels.values())
        lines = [
            f"{self.steps} steps: {self.wall:,.0f} us from the first kernel to the last, busy {busy:,.0f}, idle gaps "
            f"{self.idle:,.0f} ({self.idle / max(self.wall, 1e-9):.1%}); {calls:,} calls, {total:,.0f} us one by one",
            f"{'calls':>7} {'total us':>11} {'exclusive us':>12} {'share':>6}  kernel",
        ]
        for name, times in sorted(self.kernels.items(), key=lambda item: -item[1].exclusive):
            share = times.exclusive / max(busy, 1e-9)
            lines.append(
                f"{times.calls:>7} {times.total:>11,.0f} {times.exclusive:>12,.0f} {share:>6.1%}  {name[:_NAME]}"
            )
        return "\n".join(lines)


def shared_out(intervals: Iterable[tuple[str, float, float]], steps: int) -> Profile:
    """The profile of kernels given as name, begin and duration in microseconds, in any order."""
    intervals = list(intervals)
    found = Profile(steps)
    moments = []  # (time, whether one begins, which)
    for number, (name, begin, duration) in enumerate(intervals):
        times = found.kernels.setdefault(name, Times())
        times.calls += 1
        times.total += duration
        moments += [(begin, True, number), (begin + duration, False, number)]
    moments.sort()  # where one ends as another begins, the end comes first
    running: set[int] = set()
    before = moments[0][0] if moments else 0.0
    for moment, begins, number in moments:
        if running:
            for other in running:
                found.kernels[intervals[other][0]].exclusive += (moment - before) / len(running)
        else:
            found.idle += moment - before
        found.wall += moment - before
        before = moment
        running.add(number) if begins else running.discard(number)
    return found


def recorded(step: Callable[[], object], steps: int) -> Profile:
    """Of `steps` calls, each of which waits for the GPU. Needs PyTorch with CUDA, whoever computes."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()  # CUPTI wants PyTorch to have started
    with profile(activities=[ProfilerActivity.CUDA]):  # the first recording prepares what it needs
        step()
    with profile(activities=[ProfilerActivity.CUDA]) as recording:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        recording.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8", errors="replace"))["traceEvents"]
    return shared_out(
        ((e["name"], float(e["ts"]), float(e["dur"])) for e in events if e.get("cat") in _ON_THE_DEVICE), steps
    )

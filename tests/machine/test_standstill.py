"""A process that was stopped notices it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

from mlx_autoresearch.machine.standstill import Standstill

PROGRAM = """
import sys
from mlx_autoresearch.machine.standstill import Standstill
with Standstill() as standstill:
    print("begun", flush=True)
    sys.stdin.readline()
print(standstill.seconds)
"""


def test_a_process_that_was_stopped_has_noticed_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.3)
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate("\n")
    assert float(out) > 1


def test_a_standstill_at_the_very_end_counts() -> None:
    standstill = Standstill()
    with standstill:
        standstill._last -= 5
    assert standstill.seconds >= 5

"""The first step on a machine where MLX has compiled nothing yet, MLX's own way beside ours, in one run. On a CPU.

    python benchmarks/cold_start.py [--ours] [CONFIG.yaml] [section.key=value ...]

Each line is a process of its own with an empty TMPDIR, as after a reboot. "After a reboot" has the cache that "cold"
filled; MLX's own uses none, and --ours leaves it out. Both sides run our recipe. The loss is printed to show that all
compute the same. Random tokens. The second step compiles nothing.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path

SIDES = ("MLX's own", "ours, cold", "ours, after a reboot", "MLX's own, again")


def first_step(side: str, arguments: list[str]) -> None:
    """Print one line of the table."""
    import mlx_autoresearch  # noqa: F401  before mlx.core, for the fast BLAS

    # isort: split
    import mlx.core as mx
    import numpy as np

    from mlx_autoresearch.config.load import load_config
    from mlx_autoresearch.machine import compiled, device
    from mlx_autoresearch.recipe import interface
    from mlx_autoresearch.training.compilation import Compilation
    from mlx_autoresearch.training.progress import Reporter
    from mlx_autoresearch.training.setup import make_model

    if device.is_gpu():
        sys.exit("benchmarks/cold_start.py times MLX's compilations for a CPU; here MLX would use a GPU")
    path = arguments.pop(0) if arguments and "=" not in arguments[0] else None
    config = load_config(path, arguments)
    mx.random.seed(config.train.seed)
    B, T = config.train.device_batch_size, config.model.sequence_len
    rows = mx.array(np.random.default_rng(0).integers(0, config.data.vocab_size, (B, T + 1), dtype=np.int32))
    with ExitStack() as stack:
        if not side.startswith("MLX"):
            stack.enter_context(compiled.kept())
        model = make_model(config)
        optimizer = interface.make_optimizer(model, config.for_recipe())
        mx.eval(model.parameters(), optimizer.state)
        step = interface.make_step(model, optimizer, config.for_recipe())
        watch = stack.enter_context(Compilation(Reporter(io.StringIO()))) if not side.startswith("MLX") else None
        started = time.perf_counter()
        loss = step(repeat((rows[:, :-1], rows[:, 1:]))).item()
        first = time.perf_counter() - started
        if watch is not None:
            watch.end()
        made = len(list(compiled.loops_folder().glob("*.cpp")))
        started = time.perf_counter()
        step(repeat((rows[:, :-1], rows[:, 1:])))
        second = time.perf_counter() - started
    print(f"{side:<22}{first:>12.1f} s{second:>12.1f} s{made:>17}{loss:>14.9f}", flush=True)


def main() -> None:
    if sys.argv[1:2] == ["--side"]:
        return first_step(sys.argv[2], sys.argv[3:])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(
        f"{cores} cores\n{'':<22}{'first step':>14}{'second':>14}{'loops compiled':>17}{'first loss':>14}", flush=True
    )
    with tempfile.TemporaryDirectory() as folder:
        ours = "--ours" in sys.argv[1:]
        arguments = [word for word in sys.argv[1:] if word != "--ours"]
        for number, side in enumerate(side for side in SIDES if side.startswith("ours") or not ours):
            temporary = Path(folder, f"temporary{number}")
            temporary.mkdir()
            env = os.environ | {"TMPDIR": str(temporary), "MLX_AUTORESEARCH_CACHE": str(Path(folder, "cache"))}
            done = subprocess.run([sys.executable, __file__, "--side", side, *arguments], env=env, check=False)
            if done.returncode:
                sys.exit(done.returncode)


if __name__ == "__main__":
    main()

"""A whole optimizer step, ours beside the same model and optimizer in plain MLX and in PyTorch, from one run.

    python benchmarks/step.py [--rounds N] [--steps N] [--sides ours,composed,plain,torch] [--profile FILE]
                              [CONFIG.yaml] [section.key=value ...]

ours: `kernels: auto`. composed: `kernels: mlx`. plain: what one writes first in MLX (sides.py). torch: torch_gpt.py
under torch.compile, as two rows where the model has windows: "torch, causal" lets every layer see the whole row, by
scaled_dot_product_attention, which is more work and another model; "torch, windows" is the same model, its windows by
FlexAttention on CUDA and by a mask elsewhere. Random tokens, as frequent as words are.

Every side has a process of its own and they take turns, so that a noisy machine disturbs all alike. A process each,
because MLX and PyTorch may need different versions of the same libraries, a side's peak of memory is then its own, and
one that runs out of memory leaves the others alone. After its turn a side gives its cached memory back, and takes it
again in a step that is not counted. The first step, from building the model, includes compiling and, with
`kernels: auto` on a new machine, measuring.

--profile needs PyTorch and CUDA: FILE then lists every kernel of `--steps` steps of each side (kernel_times.py).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mlx_autoresearch  # noqa: F401  before mlx.core, for the fast BLAS
from mlx_autoresearch.config.load import load_config, split_settings
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import ReportedError, RunFailed, UserError
from mlx_autoresearch.machine import device
from mlx_autoresearch.machine.lock import device_lock
from mlx_autoresearch.recipe.model import GPT
from mlx_autoresearch.recipe.settings import recipe_settings
from mlx_autoresearch.training.setup import compute_dtype

TITLES = {
    "ours": "ours",
    "composed": "ours, composed",
    "plain": "plain MLX",
    "torch-causal": "torch, causal",
    "torch-windows": "torch, windows",
}


class Child:
    """A side's process, which answers one question at a time."""

    def __init__(self, side: str, where: tuple[str, str], words: list[str]):
        command = [sys.executable, str(Path(__file__).with_name("sides.py")), side, *where, *words]
        self.side = side
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.seconds: list[float] = []
        self.peak: int | None = None
        try:
            self.first = self.answer()
        except BaseException:
            self.end()
            raise

    def ask(self, question: str) -> dict[str, Any]:
        """The answer. Raises RunFailed where the process has ended; it has said why on standard error."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # told below
            print(question, file=self.process.stdin, flush=True)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RunFailed(f"{TITLES[self.side]}: its process ended with exit code {self.process.wait()}")
        return json.loads(line)

    def turn(self, steps: int) -> None:
        answer = self.ask(f"turn {steps}")
        self.seconds += answer["seconds"]
        self.peak = answer["peak"] if self.peak is None else max(self.peak, answer["peak"])

    def end(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()


def chosen_sides(asked: str | None, config: Config) -> list[str]:
    """By name, in the table's order. Raises UserError for an unknown one, and for PyTorch where it is not installed."""
    known = ("ours", "composed", "plain", "torch")
    names = known if asked is None else tuple(dict.fromkeys(asked.split(",")))
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"--sides: expected names of {', '.join(known)} by commas, got {unknown[0]!r}")
    if "torch" in names and find_spec("torch") is None:
        if asked is not None:
            raise UserError("--sides: PyTorch is not installed; install torch or leave it out")
        print("PyTorch is not installed: its rows are left out", file=sys.stderr)
        names = names[:-1]
    shape = config.gpt_config()
    windows = any(window < shape.sequence_len - 1 for window in shape.window_sizes)
    torch_rows = ["torch-causal", "torch-windows"] if windows else ["torch-causal"]
    return [side for name in known if name in names for side in (torch_rows if name == "torch" else [name])]


@contextmanager
def children(sides: list[str], words: list[str]) -> Iterator[list[Child]]:
    """The sides' processes after their first steps; one that fails is left out."""
    backend = device.kernel_backend()
    where = {"cuda": "cuda", "metal": "mps", None: "cpu"}[backend]
    dtype = str(compute_dtype(load_config(*split_settings(words)))).removeprefix("mlx.core.")
    started: list[Child] = []
    try:
        for side in sides:
            of_side = {"ours": ["kernels=auto"], "composed": ["kernels=mlx"]}.get(side, [])
            try:
                child = Child(side, (where, dtype), [*words, *of_side])
            except RunFailed as error:
                print(error, file=sys.stderr)
                continue
            started.append(child)
            first, loss = child.first["first"], child.first["loss"]
            print(f"{TITLES[side]}: first step {first:.1f} s, loss {loss:.4f}", file=sys.stderr, flush=True)
        yield started
    finally:
        for child in started:
            child.end()


def table(measured: list[Child], config: Config) -> str:
    dtype, tokens = compute_dtype(config), config.train.total_batch_size
    peak_flops = device.published_peak_flops(device.device_name(), dtype) or device.matmul_peak_flops(dtype)
    flops = GPT(config.gpt_config()).flops_per_token()
    rows = config.train.device_batch_size
    lines = [
        f"{device.device_name()}, {str(dtype).removeprefix('mlx.core.')}, {tokens:,} tokens a step in micro-batches of "
        f"{rows} x {config.model.sequence_len}; MFU of {peak_flops / 1e12:.3g} TFLOP/s",
        f"{'':<16}{'ms a step (median, min-max)':>30}{'tokens/s':>12}{'MFU':>8}{'peak memory':>14}{'first step':>13}",
    ]
    for child in measured:
        median = statistics.median(child.seconds)
        spread = f"{1e3 * median:.1f} ({1e3 * min(child.seconds):.1f}-{1e3 * max(child.seconds):.1f})"
        memory = "-" if child.peak is None else f"{child.peak / 2**30:.2f} GiB"
        mfu = 100 * flops * tokens / median / peak_flops
        lines.append(
            f"{TITLES[child.side]:<16}{spread:>30}{tokens / median:>12,.0f}{mfu:>7.1f}%{memory:>14}"
            f"{child.first['first']:>11.1f} s"
        )
    if len(measured) > 1:
        base, *others = measured
        for other in others:
            times = statistics.median(base.seconds) / statistics.median(other.seconds)
            memory = "" if base.peak is None or not other.peak else f", {base.peak / other.peak:.2f} of its memory"
            lines.append(f"{TITLES[base.side]} / {TITLES[other.side]}: {times:.2f} of its time{memory}")
    return "\n".join(lines)


def measure(arguments: argparse.Namespace) -> None:
    config = load_config(*split_settings(arguments.settings))
    recipe_settings(config.recipe)
    sides = chosen_sides(arguments.sides, config)
    if arguments.profile and (device.kernel_backend() != "cuda" or find_spec("torch") is None):
        raise UserError(
            "--profile: kernels are recorded by torch.profiler on an NVIDIA GPU, and one of them is missing"
        )
    with device_lock(lambda line: print(line, file=sys.stderr)), children(sides, arguments.settings) as running:
        for _ in range(arguments.rounds):
            for child in list(running):
                try:
                    child.turn(arguments.steps)
                except RunFailed as error:
                    print(error, file=sys.stderr)
                    running.remove(child)
        if running:
            print(table(running, config), flush=True)
        if arguments.profile:
            texts = [f"## {TITLES[child.side]}\n{child.ask(f'profile {arguments.steps}')['text']}" for child in running]
            Path(arguments.profile).write_text("\n\n".join(texts) + "\n", encoding="utf-8")
            print(f"kernels: {arguments.profile}")
        if len(running) < len(sides):
            raise RunFailed("not all sides were measured")


def main() -> None:
    parser = argparse.ArgumentParser(description="A whole optimizer step, ours beside plain MLX and PyTorch.")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every side")
    parser.add_argument("--steps", type=int, default=2, help="counted steps of a turn")
    parser.add_argument("--sides", help="ours, composed, plain, torch by commas; default: all that can run here")
    parser.add_argument("--profile", metavar="FILE", help="write every side's kernels to FILE")
    parser.add_argument("settings", nargs="*", metavar="CONFIG.yaml|section.key=value")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.steps < 1:
        parser.error("--rounds and --steps must be at least 1")
    try:
        measure(arguments)
    except ReportedError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()

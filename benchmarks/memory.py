"""The memory that a training takes, beside its estimate in training/memory.py.

    python benchmarks/memory.py [--rows 1,2,4] [--kernels auto,mlx] [CONFIG.yaml] [section.key=value ...]

Trains a few steps on random tokens with each device_batch_size and each choice of kernels, a process for each, so that
no text need be prepared. Prints a row for each, and on standard error what the estimate is made of. Figures are in
benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import mlx_autoresearch  # noqa: F401  before mlx.core, which it prepares

# isort: split
import mlx.core as mx

from mlx_autoresearch.config.load import load_config, split_settings
from mlx_autoresearch.machine import device
from mlx_autoresearch.recipe import interface
from mlx_autoresearch.training.memory import memory_needed, quantities
from mlx_autoresearch.training.setup import choose_kernels, compute_dtype, make_model

STEPS = 3


def measure(words: list[str]) -> None:
    """Train a few steps in this process, and print what it took as a line of JSON."""
    config = load_config(*split_settings(words))
    told, train = config.for_recipe(), config.train
    mx.random.seed(train.seed)
    model = make_model(config)
    optimizer = interface.make_optimizer(model, told)
    choose_kernels(model, optimizer, config)
    mx.eval(model.parameters(), optimizer.state)
    step = interface.make_step(model, optimizer, told)
    mx.clear_cache()
    mx.reset_peak_memory()

    def batches():
        shape = train.device_batch_size, config.model.sequence_len
        while True:
            yield tuple(mx.random.randint(0, config.data.vocab_size, shape) for _ in range(2))

    for number in range(STEPS):
        interface.set_schedule(optimizer, told, progress=0.0, step=number)
        step(batches()).item()
    backend = device.kernel_backend()
    about = {"itemsize": compute_dtype(config).size, "backend": backend, "kernels": config.kernels != "mlx"}
    counts = model.parameter_counts()
    found = {"peak": mx.get_peak_memory(), "estimate": memory_needed(config, counts, **about)}
    print(json.dumps(found | quantities(config, counts, **about)))


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2:])
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", default="", help="device batch sizes, by commas; default: the configuration's")
    parser.add_argument("--kernels", default="auto", help="choices of kernels, by commas")
    parser.add_argument("settings", nargs="*")
    arguments = parser.parse_args()
    config = load_config(*split_settings(arguments.settings))
    rows = [int(n) for n in arguments.rows.split(",") if n] or [config.train.device_batch_size]
    print("| device | configuration | device_batch_size | kernels | estimate, GiB | peak, GiB | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for kernels in arguments.kernels.split(","):
        for count in rows:
            batch = [f"train.device_batch_size={count}", f"train.total_batch_size={count * config.model.sequence_len}"]
            words = [*arguments.settings, *batch, f"kernels={kernels}"]
            command = [sys.executable, __file__, "--measure", *words]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["failed"])[-1]
                print(f"{count:>4} rows, kernels {kernels}: {last[:150]}")
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            estimate, peak = (found[name] / 2**30 for name in ("estimate", "peak"))
            print(f"| {device.device_name()} | {' '.join(arguments.settings).removeprefix('configs/')} | {count} "
                  f"| {kernels} | {estimate:.2f} | {peak:.2f} | {estimate / peak:.2f} |", flush=True)  # fmt: skip
            print(f"  {json.dumps(found)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

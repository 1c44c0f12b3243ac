"""How long the simulator takes: compiling once, then checked and fast launches. Best of several, on one core.

python benchmarks/simulator.py [--compiler g++]
"""

from __future__ import annotations

import argparse
import time

from mlx_autoresearch.kernels.registry import find_kernel
from mlx_autoresearch.kernels.verify import run_case
from mlx_autoresearch.simulator import find_compiler

CASES = [
    ("flash_attention_forward", {"Hk": 2, "T": 256, "D": 64, "dtype": "bfloat16"}),
    ("flash_attention_forward", {"Hk": 2, "T": 256, "D": 64, "dtype": "bfloat16", "window": 64}),
    ("flash_attention_forward", {"Hk": 2, "T": 256, "D": 128, "dtype": "bfloat16"}),
    ("flash_attention_dq", {"Hk": 2, "T": 256, "D": 64, "dtype": "bfloat16"}),
    ("flash_attention_dkdv", {"Hk": 2, "T": 256, "D": 64, "dtype": "bfloat16"}),
    ("softcapped_cross_entropy_loss_and_gradient", {"rows": 64, "V": 4096, "dtype": "bfloat16"}),
    ("rope", {"B": 2, "T": 256, "H": 4, "D": 64, "dtype": "bfloat16"}),
    ("newton_schulz_polynomial", {"n": 256, "dtype": "bfloat16"}),
]


def measure(name: str, sizes: dict, checked: bool, compiler: str | None, repeats: int = 5) -> tuple[float, float]:
    """Seconds of the first call, which may compile, and of the best after it; the comparison with float64 included."""
    file = find_kernel(name)
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        report = run_case(file, sizes, seed=0, checked=checked, compiler=compiler)
        times.append(time.perf_counter() - started)
        assert not report.findings, report.findings
    return times[0], min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compiler")
    compiler = parser.parse_args().compiler
    print(f"compiler: {find_compiler(compiler)}")
    print(f"{'kernel':<80} {'first':>8} {'checked':>8} {'fast':>8}   (seconds)")
    for name, sizes in CASES:
        first, checked = measure(name, sizes, True, compiler)
        _, fast = measure(name, sizes, False, compiler)
        label = f"{name} {' '.join(f'{k}={v}' for k, v in sizes.items())}"
        print(f"{label:<80} {first:8.3f} {checked:8.3f} {fast:8.3f}", flush=True)


if __name__ == "__main__":
    main()

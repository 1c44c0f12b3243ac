"""Runs Metal kernels on any CPU and checks every access they make.

`simulate` takes what `mx.fast.metal_kernel` takes. docs/simulator.md explains the memory model and its limits.
"""

from .compilers import Compiler, find_compiler
from .findings import Finding, KernelFault
from .kernel import Kernel
from .launch import Simulation, UncheckedWarning, metal_kernel, run, simulate
from .lint import LintResult, lint

__all__ = [
    "Compiler",
    "Finding",
    "Kernel",
    "KernelFault",
    "LintResult",
    "Simulation",
    "UncheckedWarning",
    "find_compiler",
    "lint",
    "metal_kernel",
    "run",
    "simulate",
]

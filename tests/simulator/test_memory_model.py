"""The verdict on races equals the definition, pair by pair, on hundreds of random programs.

One kernel interprets a program: a list of single accesses by single threads, and barriers. The definition looks at
every pair of accesses; the simulator remembers a few words per element.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest

from mlx_autoresearch.simulator import Kernel, metal_kernel, run
from tests.support.compiler_paths import needs_compiler

READ, WRITE, UPDATE, LOAD, BARRIER, OTHER_BARRIER, SIMD_BARRIER = range(7)
CELLS = 3
THREADS = (0, 1, 2, 32, 33)  # two simdgroups of 64 threads
PROGRAMS = 500

SOURCE = """
threadgroup atomic_uint shared[3];
MEMORY atomic_uint* atomics = ARRAY;
MEMORY uint* plain = (MEMORY uint*)ARRAY;
const int tid = int(thread_index_in_threadgroup), sg = int(simdgroup_index_in_threadgroup);
const int me = 64 * int(threadgroup_position_in_grid.x) + tid;
uint sum = 0;
for (int step = 0; step < program_shape[0]; step++) {
  const int op = program[3 * step], who = program[3 * step + 1], cell = program[3 * step + 2];
  if (op == 4)
    threadgroup_barrier(mem_flags::FLAG);
  else if (op == 5)
    threadgroup_barrier(mem_flags::OTHER);
  else if (op == 6 && sg == who)
    simdgroup_barrier(mem_flags::FLAG);
  else if (op < 4 && me == who) {
    if (op == 0)
      sum += plain[cell];
    else if (op == 1)
      plain[cell] = sum + 1;
    else if (op == 2)
      sum += atomic_fetch_add_explicit(&atomics[cell], 1u, memory_order_relaxed);
    else
      sum += atomic_load_explicit(&atomics[cell], memory_order_relaxed);
  }
}
y[me] = sum;
"""


def interpreter(space: str) -> Kernel:
    words = {
        "threadgroup": {"MEMORY": "threadgroup", "ARRAY": "shared", "FLAG": "mem_threadgroup", "OTHER": "mem_device"},
        "device": {
            "MEMORY": "device",
            "ARRAY": "(device atomic_uint*)cells",
            "FLAG": "mem_device",
            "OTHER": "mem_threadgroup",
        },
    }[space]
    source = SOURCE
    for word, meaning in words.items():
        source = source.replace(word, meaning)
    return metal_kernel(f"interpreter_{space}", ["program"], ["cells", "y"], source)


@dataclass(frozen=True)
class Op:
    kind: int
    who: int = 0  # of an access: the thread; of a simdgroup barrier: the simdgroup of every threadgroup
    cell: int = 0


def ordered(program: list[Op], first: int, second: int) -> bool:
    """Whether the first access happens before the second: same thread, or a barrier of both between them."""
    a, b = program[first].who, program[second].who
    if a // 64 != b // 64:
        return False
    between = program[first + 1 : second]
    return (
        a == b
        or any(op.kind == BARRIER for op in between)
        or (a // 32 == b // 32 and any(op.kind == SIMD_BARRIER and op.who == a % 64 // 32 for op in between))
    )


def defined_race(program: list[Op]) -> bool:
    accesses = [i for i, op in enumerate(program) if op.kind <= LOAD]
    for n, i in enumerate(accesses):
        for j in accesses[n + 1 :]:
            kinds = {program[i].kind, program[j].kind}
            writes, both_atomic = kinds & {WRITE, UPDATE}, kinds <= {UPDATE, LOAD}
            if program[i].cell == program[j].cell and writes and not both_atomic and not ordered(program, i, j):
                return True
    return False


def defined_garbage(program: list[Op]) -> bool:
    """Of a program without races and atomics: whether something is read that was not written before."""
    written: set[int] = set()
    for op in program:
        if op.kind == WRITE:
            written.add(op.cell)
        elif op.kind == READ and op.cell not in written:
            return True
    return False


def random_program(source: random.Random, groups: int) -> list[Op]:
    program = []
    for _ in range(source.randint(2, 9)):
        kind = source.choices(range(7), weights=[6, 6, source.choice([0, 2]), 1, 3, 1, 3])[0]
        if kind == SIMD_BARRIER:
            program.append(Op(kind, source.randint(0, 1)))
        elif kind <= LOAD:
            thread = source.choice(THREADS) + 64 * source.choice([0] * 4 + [groups - 1])
            program.append(Op(kind, thread, source.randrange(CELLS)))
        else:
            program.append(Op(kind))
    return program


@needs_compiler
@pytest.mark.parametrize(("space", "groups"), [("threadgroup", 1), ("device", 1), ("device", 2)])
def test_races_are_what_the_definition_says(space: str, groups: int) -> None:
    kernel, source = interpreter(space), random.Random(0)
    races = 0
    for number in range(PROGRAMS):
        program = random_program(source, groups)
        found = run(
            kernel,
            [np.array([[op.kind, op.who, op.cell] for op in program], np.int32).reshape(-1, 3)],
            output_shapes=[(CELLS,), (64 * groups,)],
            output_dtypes=["uint32", "uint32"],
            grid=(64 * groups, 1, 1),
            threadgroup=(64, 1, 1),
            seed=number % 5,
            allow_unwritten=True,
            static_pass=False,
        ).findings
        kinds = {finding.what for finding in found}
        race = defined_race(program)
        races += race
        assert (f"{space}-race" in kinds) == race, f"{program}: {kinds}"
        if not race and groups == 1 and all(op.kind not in (UPDATE, LOAD) for op in program):
            garbage = any("uninitialised" in kind for kind in kinds)
            assert garbage == defined_garbage(program), f"{program}: {kinds}"
    assert PROGRAMS // 5 < races < PROGRAMS * 4 // 5  # the programs are neither all wrong nor all right

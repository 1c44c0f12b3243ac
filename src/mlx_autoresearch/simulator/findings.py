"""What the simulator finds, and what most often causes it."""

from __future__ import annotations

from dataclasses import dataclass

# kind -> the likely cause, in one sentence
CAUSES = {
    "threadgroup-race": (
        "No barrier with mem_flags::mem_threadgroup lies between the two accesses on every path; a simdgroup barrier "
        "orders only the lanes of its own simdgroup."
    ),
    "device-race": (
        "Two threads touch one element of an output without a barrier with mem_flags::mem_device between them; nothing "
        "orders two threadgroups."
    ),
    "uninitialised-threadgroup-read": (
        "Threadgroup memory begins as garbage: the element is never written in this threadgroup, or is read too early."
    ),
    "header-without-end": (
        "The last line of a header that is a comment or a directive swallows the signature that MLX writes behind it."
    ),
    "uninitialised-output-read": "Outputs begin as garbage unless init_value is given.",
    "unwritten-output": "The grid, the index arithmetic or a guard leaves elements of the output out.",
    "input-write": "Inputs are read-only: write to an output.",
    "static-write": "A constant or static variable is written: Metal has no writable program-scope variables.",
    "device-out-of-bounds": "A bounds guard is missing or wrong, or the index arithmetic is off.",
    "threadgroup-out-of-bounds": "The index leaves the threadgroup array: check its size and the leading dimension.",
    "private-out-of-bounds": "The index leaves a private array or vector.",
    "wild-access": "The address lies in no buffer: a pointer or an index was computed from garbage or overflowed.",
    "misaligned-access": (
        "A vector access needs an address that is a multiple of the vector's size. Threadgroup arrays are aligned as "
        "their declared type is: declare them with the vector's type or alignas."
    ),
    "barrier-divergence": (
        "threadgroup_barrier stands in control flow that is not the same for every thread of the threadgroup."
    ),
    "simdgroup-divergence": "A simdgroup operation stands in control flow that is not the same for every lane.",
    "inactive-lane": "The operation involves a lane that has returned or does not exist (a partial simdgroup).",
    "threadgroup-memory-limit": "Metal allows 32 KB of threadgroup memory: use smaller tiles or a narrower type.",
    "threadgroup-size-limit": "Metal allows 1 to 1024 threads in a threadgroup.",
    "double-arithmetic": "Metal has no double: use float.",
    "stack-overflow": "A private array is far too large: the GPU would spill it to device memory, if it ran at all.",
    "timeout": "A loop does not end, or ends very late.",
    "undefined-arithmetic": "The result is undefined in Metal too.",
    "fast-math": (
        "Of infinities and NaN Metal's fast:: functions promise nothing, exp2(-INFINITY) = 0 included: clamp the "
        "argument, or leave `fast::` out."
    ),
    "shift-count": (
        "Metal takes a shift's count modulo the width, so that `1u << 32` is 1; C++ leaves it open, and so does the "
        "simulator: write what is meant, for example `n & 31`."
    ),
    "uninitialised-variable": "A private variable is used before it has a value.",
    "address-space": (
        "Pointers keep the address space that they were declared with: give the parameter the right one, or make it a "
        "template parameter."
    ),
    "member-address-space": (
        "From Metal 4.1 on `this` of a member function may point anywhere, so that its members cannot be passed as "
        "`thread T&`: write the space behind the function's parameters (`void f() thread {...}`), or make it a free "
        "function."
    ),
    "constant-address-space": (
        "MLX passes an input of fewer than 8 elements as `constant`, not `device`: accept both (make the pointer's "
        "type a template parameter), or guarantee 8 elements."
    ),
    "threadgroup-outside-kernel": "Threadgroup variables can be declared only in the kernel's body.",
    "ambiguous-place": (
        "g++ knows the line of a barrier or simdgroup operation, not its column: give each its own line, or use clang."
    ),
    "reserved-word": "Metal's compiler takes this word as a keyword: choose another name.",
    "not-ascii": "MLX hands the source to Metal as ASCII, and Metal gets nothing: write it, comments too, in ASCII.",
    "unsupported": "The simulator does not know this construct: docs/simulator.md says how to add it.",
    "compile-error": "The compiler rejects the source; the simulator may also lack a function of Metal's library.",
    "launch-error": "The GPU's compiler refuses the kernel, or it cannot be launched with these sizes.",
    "wrong-result": "The output differs from the definition by more than the tolerance.",
}


@dataclass(frozen=True)
class Finding:
    """One thing wrong with a kernel.

    `what` is one of the keys of `CAUSES`; `file` and `line` are the kernel's (0: the launch as a whole); `thread` and
    `threadgroup` are positions (x, y, z) of the first occurrence; `count` says how often it happened.
    """

    what: str
    message: str
    file: str = ""
    line: int = 0
    thread: tuple[int, int, int] | None = None
    threadgroup: tuple[int, int, int] | None = None
    count: int = 1

    @property
    def cause(self) -> str:
        """The likely cause, in one sentence."""
        return CAUSES[self.what]

    @property
    def place(self) -> str:
        """`file:line`, or as much of it as is known."""
        return f"{self.file}:{self.line}" if self.line else self.file

    def __str__(self) -> str:
        parts = [f"{self.what}{f' at {self.place}' if self.place else ''}: {self.message}"]
        if self.thread is not None:
            parts.append(f"[thread {self.thread} of threadgroup {self.threadgroup}, {self.count} times]")
        return " ".join([*parts, self.cause])


class KernelFault(Exception):
    """A kernel is wrong. `findings` says how; the message is one line for each."""

    def __init__(self, findings: list[Finding]) -> None:
        super().__init__("\n".join(str(finding) for finding in findings))
        self.findings = findings


def merge(findings: list[Finding]) -> list[Finding]:
    """Joins findings of one kind at one line, which a compiler's unrolling has split."""
    merged: dict[tuple[str, str, int, str], Finding] = {}
    for finding in findings:
        # Without a line the message tells findings apart: two outputs may both be unwritten.
        key = (finding.what, finding.file, finding.line, "" if finding.line else finding.message)
        first = merged.setdefault(key, finding)
        if first is not finding:
            count = first.count + finding.count
            merged[key] = Finding(
                first.what, first.message, first.file, first.line, first.thread, first.threadgroup, count
            )
    return list(merged.values())

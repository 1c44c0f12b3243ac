"""`mlx-autoresearch kernels`: verify Metal kernels, ours or anybody's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlx_autoresearch.errors import UserError

if TYPE_CHECKING:
    from mlx_autoresearch.kernels.verify import KernelReport

kernels = typer.Typer(help="Verify hand-written Metal kernels, without a Mac.", no_args_is_help=True)


@kernels.callback()
def main() -> None:
    """Keeps `verify` a command of its own."""


@kernels.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Our kernels by name, or .metal files. Default: all ours.")
    ] = None,
    shape: Annotated[
        list[str] | None, typer.Option(help="Sizes to try instead of the usual: T=97,D=64. May repeat.")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="Order: 0 ascending, 1 descending, else random. May repeat.")
    ] = None,
    exhaustive: Annotated[bool, typer.Option(help="Add 80 random sizes and orders for each kernel.")] = False,
    metal: Annotated[bool, typer.Option(help="Run on this Mac's GPU instead of the simulator.")] = False,
    compiler: Annotated[str | None, typer.Option(help="C++ compiler to use. Default: the best one found.")] = None,
) -> None:
    """Lint, simulate with every access checked, and compare with the float64 definition. Exit code 1 on any finding."""
    failed = _verify(names or [], [_sizes(text) for text in shape or []], seed, exhaustive, metal, compiler)
    raise typer.Exit(1 if failed else 0)


def _sizes(text: str) -> dict[str, Any]:
    sizes: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--shape: expected NAME=VALUE,…, got {text!r}")
        value = value.strip()
        sizes[name.strip()] = int(value) if value.lstrip("-").isdigit() else value
    return sizes


def _verify(
    names: list[str],
    shapes: list[dict[str, Any]],
    seeds: list[int] | None,
    exhaustive: bool,
    metal: bool,
    compiler: str | None,
) -> bool:
    from mlx_autoresearch.kernels.registry import find_kernel, kernel_names
    from mlx_autoresearch.kernels.verify import SEEDS, verify, verify_on_metal, why_no_metal
    from mlx_autoresearch.simulator import find_compiler

    if metal and (reason := why_no_metal()):
        raise UserError(reason)
    files = [find_kernel(name) for name in names or kernel_names()]
    where = "Metal"
    if not metal:
        chosen = find_compiler(compiler)
        where = str(chosen)
    reports = []
    for file in files:
        if metal:
            reports.append(verify_on_metal(file, shapes))
        else:
            reports.append(verify(file, shapes, seeds or SEEDS, exhaustive, compiler))
    _show(reports, where)
    return any(report.findings for report in reports)


def _show(reports: list[KernelReport], where: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"kernels verified with {where}")
    for heading in ("kernel", "static pass", "cases", "error / tolerance", "seconds", "result"):
        table.add_column(
            heading, justify="left" if heading in ("kernel", "result") else "right", no_wrap=heading == "kernel"
        )
    for report in reports:
        table.add_row(
            report.name,
            f"{len(report.lint)} findings" if report.lint else "ok",
            str(len(report.cases)),
            f"{report.error:.2f}",
            f"{sum(case.seconds for case in report.cases):.1f}",
            f"{len(report.findings)} findings" if report.findings else "ok",
        )
    console.print(table)
    for report in reports:
        for finding in report.lint:
            console.print(f"{report.name}: {finding}", markup=False, soft_wrap=True)
        for case in report.cases:
            sizes = ", ".join(f"{name}={value}" for name, value in case.sizes.items())
            for finding in case.findings:
                console.print(f"{report.name} ({sizes}; seed {case.seed}): {finding}", markup=False, soft_wrap=True)
        for text in report.unchecked:
            console.print(f"{report.name}: not checked: {text}", markup=False, soft_wrap=True)

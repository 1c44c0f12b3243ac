"""`mlx-autoresearch kernels`: verify Metal kernels, ours or anybody's; measure ours on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mlx_autoresearch.errors import UserError

if TYPE_CHECKING:
    from mlx_autoresearch.kernels.coverage import Coverage
    from mlx_autoresearch.kernels.verify import KernelReport

_Where = Literal["simulator", "metal", "cuda"]

kernels = typer.Typer(
    help="Verify hand-written Metal kernels, without a Mac; measure them on a GPU.", no_args_is_help=True
)


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
    on: Annotated[_Where, typer.Option(help="The simulator, or this machine's GPU.")] = "simulator",
    compiler: Annotated[str | None, typer.Option(help="C++ compiler to use. Default: the best one found.")] = None,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Also name what the cases do not reach: branches, loops, types, tiles.")
    ] = False,
) -> None:
    """Lint, simulate with every access checked, and compare with the float64 definition. Exit code 1 on any finding."""
    failed = _verify(names or [], [_sizes(text) for text in shape or []], seed, exhaustive, on, compiler, coverage)
    raise typer.Exit(1 if failed else 0)


@kernels.command()
def mutate(
    names: Annotated[
        list[str] | None, typer.Argument(help="Our kernels by name, or .metal files. Default: all ours.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Mutants of each kernel, spread over its lines.")] = 40,
    every: Annotated[bool, typer.Option("--all", help="All mutants: up to 7,000 of a kernel.")] = False,
    seed: Annotated[int, typer.Option(help="Another seed draws other mutants.")] = 0,
    explained: Annotated[
        Path | None, typer.Option(help="YAML list of survivors with reasons: they do not count.", dir_okay=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    compiler: Annotated[str | None, typer.Option(help="C++ compiler to use. Default: the best one found.")] = None,
) -> None:
    """Try small, wrong versions of a kernel: does `verify` find each? Exit code 1 if one survives."""
    survived = _mutate(names or [], None if every else count, seed, explained, as_json, compiler)
    raise typer.Exit(1 if survived else 0)


_Settings = Annotated[
    list[str] | None, typer.Argument(metavar="[CONFIG] [KEY=VALUE]...", help="as of `train`: the shapes to measure")
]


@kernels.command()
def tune(settings: _Settings = None) -> None:
    """Measure what `kernels: auto` has not yet measured of a configuration's operations, and choose."""
    _tune(settings, again=False)


@kernels.command()
def bench(settings: _Settings = None) -> None:
    """Measure all of a configuration's operations anew, composed and by our kernels, and choose."""
    _tune(settings, again=True)


def _tune(settings: list[str] | None, again: bool) -> None:
    from mlx_autoresearch.config.load import load_config, split_settings
    from mlx_autoresearch.machine.blas import require_mlx

    config = load_config(*split_settings(settings or []))
    require_mlx()
    from mlx_autoresearch.training.tune import choices_text, tune

    typer.echo(choices_text(tune(config, again=again)))


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
    on: _Where,
    compiler: str | None,
    coverage: bool,
) -> bool:
    from mlx_autoresearch.machine.blas import require_mlx

    require_mlx()
    from mlx_autoresearch.kernels.registry import find_kernel, kernel_names
    from mlx_autoresearch.kernels.verify import SEEDS, require_gpu, verify, verify_on_gpu
    from mlx_autoresearch.simulator import find_compiler

    if on != "simulator" and coverage:
        raise UserError(f"kernels: --coverage is measured in the simulator, not on {on}: leave out one of the two")
    if on != "simulator":
        require_gpu(on)
    if coverage:
        from mlx_autoresearch.simulator.instrumentation import require_clang

        require_clang(find_compiler(compiler))
    files = [find_kernel(name) for name in names or kernel_names()]
    where = str(find_compiler(compiler)) if on == "simulator" else on.capitalize()
    reports = []
    for file in files:
        if on != "simulator":
            reports.append(verify_on_gpu(file, on, shapes))
        else:
            reports.append(verify(file, shapes, seeds or SEEDS, exhaustive, compiler))
    _show(reports, where)
    measured = []
    if coverage:
        from mlx_autoresearch.kernels.coverage import measure

        for file in files:
            measured.append(measure(file, shapes, seeds or SEEDS, exhaustive, compiler))
            _show_coverage(measured[-1])
    return any(report.findings for report in reports) or not all(report.complete for report in measured)


def _show_coverage(coverage: Coverage) -> None:
    kinds = [place.kind for place in coverage.places]
    counted = {"condition": kinds.count("condition"), "loop": kinds.count("loop") + kinds.count("do")}
    what = ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in counted.items())
    missing = len(coverage.unreached) + len(coverage.untrue)
    typer.echo(f"\n{coverage.name}: {what}: {f'{missing} to do' if missing else 'all reached or argued'}")
    for gap in coverage.unreached:
        typer.echo(f"  {gap}")
    for key in coverage.untrue:
        typer.echo(f"  unreachable, says the YAML, but it is not: {key}")
    for gap, reason in coverage.argued:
        typer.echo(f"  {gap}\n    argued: {reason}")
    for text in coverage.unmeasured:
        typer.echo(f"  not measured: {text}")
    tried = (
        f"{name} {least:g}" + (f"...{most:g}" if most > least else "") for name, (least, most) in coverage.sizes.items()
    )
    typer.echo(f"  sizes: {', '.join(tried)}")


def _mutate(
    names: list[str], count: int | None, seed: int, explained: Path | None, as_json: bool, compiler: str | None
) -> bool:
    from mlx_autoresearch.machine.blas import require_mlx

    require_mlx()
    from mlx_autoresearch.kernels.mutation.report import mutation_test, read_explanations
    from mlx_autoresearch.kernels.registry import find_kernel, kernel_names

    explanations = read_explanations(explained) if explained else []
    files = [find_kernel(name) for name in names or kernel_names()]
    reports = []
    for file in files:
        reports.append(mutation_test(file, count, seed, explanations, compiler))
        if not as_json:
            typer.echo(reports[-1].text())
    if as_json:
        typer.echo(json.dumps([report.data() for report in reports], indent=2))
    else:
        total, found, given, survived = (
            sum(report.counts[what] for report in reports) for what in ("mutants", "found", "explained", "survived")
        )
        typer.echo(f"{found} of {total} mutants found, {given} explained, {survived} survived")
    return any(report.survivors for report in reports)


def _show(reports: list[KernelReport], where: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"kernels verified with {where}", caption="error: the largest, in units of the tolerance")
    table.add_column("kernel", overflow="fold")
    for heading in ("lint", "cases", "error", "seconds", "result"):
        table.add_column(heading, justify="right", no_wrap=True)
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

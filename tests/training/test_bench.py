"""`bench`: what it measures, what it leaves out, and that what it writes can be published."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from mlx_autoresearch.config.load import load_config, settings_of
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import OutOfMemory
from mlx_autoresearch.kernels import tuning
from mlx_autoresearch.kernels.choice import Choice
from mlx_autoresearch.kernels.tuning import Measurement
from mlx_autoresearch.machine import device
from mlx_autoresearch.machine.device import MemoryLimits
from mlx_autoresearch.machine.lock import is_free
from mlx_autoresearch.machine.paths import cache_dir
from mlx_autoresearch.training import bench as bench_module
from mlx_autoresearch.training.bench import bench, shipped
from mlx_autoresearch.training.bench_report import as_json, text
from tests.support.fake_gpu import compose_both_sides, fake_gpu
from tests.support.operations import OPERATIONS

TINY = Path(__file__).parents[2] / "configs/tiny.yaml"
SECRET = "zebrafish"


def tiny(*overrides: str) -> Config:
    return load_config(TINY, overrides)


@pytest.fixture
def secret_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user and a host whose names must not be published."""
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, SECRET)
    monkeypatch.setattr(socket, "gethostname", lambda: f"{SECRET}.local")
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: cls(f"/Users/{SECRET}")))


def test_figures_of_a_configuration_of_the_users_own(secret_names: None) -> None:
    config = tiny("data.source=text", f"data.source.paths=[/Users/{SECRET}/diary.txt]")
    found = bench(config, steps=2)
    (m,) = found.measured
    assert len(m.steps) == 2 and min(m.steps) > 0 and m.first_step > 0 and m.peak_memory > 2**20
    assert min(m.steps) <= m.median <= max(m.steps)
    assert m.tokens_per_second == pytest.approx(config.train.total_batch_size / m.median)
    written = json.dumps(as_json(found), allow_nan=False)
    content = json.loads(written)
    check_schema(content)
    assert SECRET not in written and "diary" not in written and "/" not in written.replace("n/a", "")
    assert str(Path.cwd()) not in written and socket.gethostname() not in written
    (configuration,) = content["configurations"]
    assert configuration["settings"]["model.sequence_len"] == config.model.sequence_len
    assert {k["operation"].split()[0] for k in configuration["kernels"]} == OPERATIONS
    assert "mlx everywhere" in text(found)


def check_schema(content: dict[str, Any]) -> None:
    """Every key that a reader of the file may rely on, of the documented type."""
    number = (int, float)
    assert {k: type(v) for k, v in content.items()} == {
        **{"format": int, "date": str, "machine": dict, "matrix_products": dict, "configurations": list},
        "left_out": dict,
    }
    machine = content["machine"]
    assert set(machine) == {
        *("chip", "backend", "cpu_cores", "gpu_cores", "memory", "recommended_memory", "system", "instruction_set"),
        *("blas", "mlx_wheel_macos", "python", "packages"),
    }
    assert machine["packages"]["mlx"] and machine["packages"]["mlx_autoresearch"]
    assert isinstance(content["matrix_products"]["flops"], number)
    for configuration in content["configurations"]:
        assert all(isinstance(seconds, number) for seconds in configuration["step_seconds"])
        for key in ("first_step_seconds", "choosing_seconds", "tokens_per_second", "mfu_percent", "peak_memory"):
            assert isinstance(configuration[key], number), key
        for kernel in configuration["kernels"]:
            assert set(kernel) == {"operation", "chosen", "measured"}
            for side in kernel["measured"].values():
                assert set(side) == {"milliseconds", "peak_mb", "error", "failure"}


def test_both_sides_of_every_kernel_where_there_is_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secret_names: None
) -> None:
    fake_gpu(monkeypatch, tmp_path)
    compose_both_sides(monkeypatch)
    found = bench(tiny(), steps=1)
    (m,) = found.measured
    assert m.measured.keys() == m.kernels.keys()
    what = next(what for what in m.kernels if what.startswith("attention"))
    broken = Measurement(error=float("inf"), failure=f"cannot read /Users/{SECRET}/x.ptx on {SECRET}.local")
    m.measured[what] = Choice("mlx", m.measured[what].measured | {"cuda": broken})
    written = json.dumps(as_json(found), allow_nan=False)
    content = json.loads(written)
    check_schema(content)
    assert SECRET not in written and "cannot read <path> on <name>" in written
    (configuration,) = content["configurations"]
    assert {frozenset(kernel["measured"]) for kernel in configuration["kernels"]} == {frozenset({"mlx", "cuda"})}
    rows = text(found).splitlines()[-len(m.kernels) :]
    assert {row.split()[0] for row in rows} == OPERATIONS
    assert all(row.split()[-1] == m.kernels[what] for row, what in zip(rows, m.kernels, strict=True))
    assert [("failed" in row) for row in rows].count(True) == 1


def test_lines_have_80_columns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_gpu(monkeypatch, tmp_path)
    compose_both_sides(monkeypatch)
    monkeypatch.setattr(tuning, "SECONDS", 0.0)
    found = bench(tiny(), steps=1)
    found.left_out["reference"] = "training needs about 120.5 GiB of memory, more than Metal recommends; " * 2
    (m,) = found.measured
    m.steps[:] = [98.765, 123.456]
    lines = text(found).splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) > len(m.kernels)


def test_the_shipped_configurations_are_those_of_the_files() -> None:
    given = shipped(["train.seed=7"])
    assert given["default"] == load_config("configs/default.yaml", ["train.seed=7"])
    ours, file = (settings_of(c) for c in (given["reference"], load_config("configs/reference.yaml", ["train.seed=7"])))
    assert {key for key in ours if ours[key] != file[key]} == {
        *("data.source", "train.time_budget", "evaluate.eval_tokens", "evaluate.sequence_len"),  # no step needs them
        *("train.total_batch_size", "train.device_batch_size"),
    }


def test_what_does_not_fit_runs_in_parts_or_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "a": tiny(f"train.total_batch_size={64 * 512}", "train.device_batch_size=512"),
        "b": tiny("model.n_layer=64", "model.n_embd=1024"),
    }
    monkeypatch.setattr(bench_module, "shipped", lambda overrides: given)
    monkeypatch.setattr(device, "memory_limits", lambda: MemoryLimits(2**28, 2**28, 2**28))
    found = bench(steps=1)
    assert [m.name for m in found.measured] == ["a"] and found.left_out.keys() == {"b"}
    assert found.measured[0].config.train.device_batch_size < 512
    assert found.measured[0].config.train.total_batch_size == 64 * 512
    assert "GiB" in found.left_out["b"] and "b is left out: " in text(found)
    with pytest.raises(OutOfMemory, match="fits"):
        bench(given["a"], steps=1)  # as `train` refuses it


def test_one_at_a_time_on_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = bench_module._measure

    def looking(*arguments: Any) -> Any:
        assert not is_free(cache_dir() / "device.lock")
        return measure(*arguments)

    monkeypatch.setattr(bench_module, "_measure", looking)
    assert len(bench(tiny(), steps=1).measured) == 1
    assert is_free(cache_dir() / "device.lock")

"""What doctor finds and says, on this machine and on machines made up by patching."""

import io
import json
import platform
import sys
from pathlib import Path

import pytest
from rich.console import Console

from mlx_autoresearch.cli import diagnosis, doctor
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.machine import blas, device, mac
from mlx_autoresearch.sandbox import confinement
from mlx_autoresearch.simulator import compilers


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache folder, and a machine whose matrix products need no measuring."""
    monkeypatch.setenv("MLX_AUTORESEARCH_CACHE", str(tmp_path))
    monkeypatch.setattr(device, "measure_matmul_flops", lambda _: 250e9)
    return tmp_path


def write_manifest(folder: Path, **changes: object) -> None:
    split = {"documents": 2, "tokens": 1234, "bytes": 4321, "dtype": "uint16", "files": {}}
    manifest = {
        "source": {"kind": "stdlib"},
        "fingerprint": "f",
        "vocab_size": 4096,
        "tokenizer": {},
        "splits": {"train": split, "val": split | {"tokens": 56}},
        "duplicates_dropped": 0,
        "resembling_dropped": 0,
        "val_sha256": "0",
        "files": {},
        "versions": {},
    }
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


def printed(found: diagnosis.Diagnosis) -> str:
    out = io.StringIO()
    doctor.print_diagnosis(found, Console(file=out, width=40))
    return out.getvalue()


def test_diagnosis_states_this_machines_facts(cache: Path):
    found = diagnosis.diagnose()
    assert found.versions["python"] == platform.python_version()
    assert {"mlx", "mlx_autoresearch", "numpy", "tokenizers"} <= found.versions.keys()
    assert found.device == device.device_name()
    assert found.blas == blas.name()
    assert found.matmul_flops == 250e9
    assert found.cache == cache


def test_every_fact_is_one_greppable_line(cache: Path):
    text = printed(diagnosis.diagnose())
    keys = [line.split(": ")[0] for line in text.splitlines()]
    assert {"versions", "device", "memory", "matrix products", "BLAS on the CPU", "custom kernels", "cache"} <= set(
        keys
    )
    assert "250.0 GFLOP/s" in text
    assert str(cache) in text


def test_it_says_what_confines(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(confinement, "here", lambda: "none: just so")
    assert "\nconfinement: none: just so\n" in printed(diagnosis.diagnose())


def test_prepared_data_is_listed(cache: Path):
    assert any("no data is prepared" in warning for warning in diagnosis.diagnose().warnings)
    write_manifest(cache / "prepared" / "abc")
    write_manifest(cache / "prepared" / ".making-abd")
    found = diagnosis.diagnose()
    assert [folder.path.name for folder in found.prepared] == ["abc"]
    assert not any("prepared" in warning for warning in found.warnings)
    assert "prepared: stdlib, vocabulary 4,096, 1,234 train tokens, 56 val tokens, abc" in printed(found)


def test_damaged_data_is_a_warning(cache: Path):
    write_manifest(cache / "prepared" / "abc", vocab_size="many")
    (cache / "prepared" / "empty").mkdir()
    found = diagnosis.diagnose()
    assert [folder.manifest for folder in found.prepared] == [None, None]
    assert len([warning for warning in found.warnings if str(cache / "prepared") in warning]) == 2


@pytest.mark.parametrize(
    ("installed", "gpu", "driver", "blas_name", "compiler", "said"),
    [
        ({"mlx-cpu"}, False, None, blas.MKL, True, []),
        ({"mlx-cpu"}, False, None, blas.MKL, False, ["g++"]),
        ({"mlx-cpu"}, False, None, blas.REFERENCE, True, ["reference BLAS"]),
        ({"mlx-cpu"}, False, "/usr/bin/nvidia-smi", blas.MKL, True, ["mlx_autoresearch[cuda]"]),
        ({"mlx-cpu", "mlx-cuda-13"}, False, "/usr/bin/nvidia-smi", blas.MKL, True, ["overwrite each other"]),
        ({"mlx-cuda-13"}, True, "/usr/bin/nvidia-smi", blas.REFERENCE, False, []),
    ],
)
def test_each_lack_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
    cache: Path,
    installed: set[str],
    gpu: bool,
    driver: str | None,
    blas_name: str,
    compiler: bool,
    said: list[str],
):
    write_manifest(cache / "prepared" / "abc")
    monkeypatch.setattr(diagnosis, "installed", lambda package: "1.0" if package in installed else None)
    monkeypatch.setattr(diagnosis.shutil, "which", lambda _: driver)
    monkeypatch.setattr(blas, "name", lambda: blas_name)
    monkeypatch.setattr(device, "is_gpu", lambda: gpu)
    monkeypatch.setattr(device, "cpu_compiler_available", lambda: compiler)
    warnings = diagnosis.diagnose().warnings
    assert len(warnings) == len(said)
    assert all(words in warning for words, warning in zip(said, warnings, strict=True))


def test_without_a_backend_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    with pytest.raises(UserError, match=r"mlx_autoresearch\[cpu\]"):
        diagnosis.diagnose()


def test_share_of_the_published_peak_is_shown_where_there_is_one(monkeypatch: pytest.MonkeyPatch, cache: Path):
    monkeypatch.setattr(device, "published_peak_flops", lambda *_: None)
    assert "of the published peak" not in printed(diagnosis.diagnose())
    monkeypatch.setattr(device, "published_peak_flops", lambda *_: 1e12)
    assert "250.0 GFLOP/s" in (text := printed(diagnosis.diagnose()))
    assert "25% of the published peak" in text


@pytest.mark.usefixtures("mac")
def test_on_a_mac_it_names_system_memory_and_compiler(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mac, "wheel_macos", lambda: 15)
    text = printed(diagnosis.diagnose())
    assert "system: macOS 15.5, arm64, MLX's wheel for macOS 15\n" in text
    assert "device: Apple M2" in text
    assert "memory: 16.0 GiB in all, 10.7 GiB recommended" in text
    assert "C++ compiler for the simulator: clang++ 17\n" in text
    assert "C++ compiler for mx.compile" not in text
    assert "BLAS on the CPU: Accelerate" in text


@pytest.mark.usefixtures("mac")
def test_on_a_mac_with_old_tools_it_says_how_to_update_them(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SIMULATED_CLANG", "15")
    monkeypatch.setattr("mlx_autoresearch.simulator.compilers._CANDIDATES", ["clang++"])
    compilers._identify.cache_clear()
    text = printed(diagnosis.diagnose())
    compilers._identify.cache_clear()
    assert "C++ compiler for the simulator: none: clang++ is Apple clang 15, too old; update the Command Line" in text

"""`auto` measures where training asks for it, once for each shape, and uses what it remembers everywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_autoresearch.config.gpt import GPTConfig
from mlx_autoresearch.kernels import choice, registry
from mlx_autoresearch.kernels.choice import FILE, KernelWarning, choices, forget, measuring
from mlx_autoresearch.kernels.operation import Operation, recording
from mlx_autoresearch.kernels.registry import use_folder
from mlx_autoresearch.machine import device, system
from mlx_autoresearch.recipe.model import GPT
from mlx_autoresearch.recipe.optimizer import MuonAdamW
from mlx_autoresearch.recipe.step import make_step
from tests.support.fake_gpu import compose_both_sides, fake_gpu
from tests.support.operations import OPERATIONS

X = mx.arange(6.0).reshape(2, 3)
SHAPE = "double float32[2,3]"
NewProcess = Callable[[], Path]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    fake_gpu(monkeypatch, tmp_path / "0")
    return tmp_path / "0"


@pytest.fixture
def new_process(monkeypatch: pytest.MonkeyPatch, cache: Path) -> NewProcess:
    """Begin anew with what the cache folder holds: it moves, so that it is read again. Gives the file."""
    folder = cache

    def begin() -> Path:
        nonlocal folder
        old, folder = folder, folder.with_name(str(int(folder.name) + 1))
        shutil.copytree(old, folder)
        monkeypatch.setenv("MLX_AUTORESEARCH_CACHE", str(folder))
        return folder / FILE

    return begin


class Double:
    """Twice the array, with what may go wrong; counts its calls."""

    def __init__(self, factor: float = 2.0, error: BaseException | None = None):
        self.factor, self.error, self.calls = factor, error, 0

    def __call__(self, x: mx.array, **_: object) -> mx.array:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return self.factor * x


def operation(composed: Double, custom: Double) -> Operation:
    return Operation("double", composed, custom, (0,), lambda x, **_: (mx.ones(x.shape, x.dtype),))


def test_measures_once_and_remembers(capsys: pytest.CaptureFixture[str], new_process: NewProcess) -> None:
    composed, custom = Double(), Double()
    first = operation(composed, custom)
    with measuring():
        assert first(X).tolist() == (2 * X).tolist()
        calls = composed.calls + custom.calls
        assert min(composed.calls, custom.calls) >= 1
        assert list(choices()) == [SHAPE]
        assert capsys.readouterr().err == f"kernels: measuring {SHAPE} (once on this machine)\n"
        first(X)
        new_process()
        first(X)
        assert composed.calls + custom.calls == calls + 2  # one call each to compute, none to measure
        first(mx.ones((3, 3)))
    assert list(choices()) == [SHAPE, "double float32[4,3]"]


def test_the_batch_counts_by_its_power_of_two() -> None:
    both = operation(Double(), Double())
    with measuring():
        for rows in (5, 6, 7, 8):
            both(mx.ones((rows, 3)))
    assert list(choices()) == ["double float32[8,3]"]


def test_nothing_is_measured_where_nobody_asked_for_it(capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    composed, custom = Double(), Double()
    assert operation(composed, custom)(X).tolist() == (2 * X).tolist()
    assert (composed.calls, custom.calls) == (1, 0)
    assert capsys.readouterr().err == "" and choices() == {} and not cache.exists()
    with measuring(), pytest.raises(ZeroDivisionError):
        _ = 1 / 0
    operation(composed, custom)(X)  # outside again, whatever ended it
    assert (composed.calls, custom.calls) == (2, 0)


CONFIG = GPTConfig(sequence_len=16, vocab_size=40, n_layer=2, n_head=2, n_kv_head=1, n_embd=32)


def sample(model: GPT, tokens: int) -> None:
    ids = [1, 2, 3]
    for _ in range(tokens):
        ids.append(int(model(mx.array([ids]))[0, -1].argmax().item()))


def test_sampling_measures_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """At ever new lengths each of a layer's operations would be measured for every token."""
    compose_both_sides(monkeypatch)
    sample(GPT(CONFIG, mx.float32, "auto"), 10)
    assert choices() == {}
    assert capsys.readouterr().err == ""


def test_a_training_step_measures_what_it_does_not_know(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compose_both_sides(monkeypatch)
    model = GPT(CONFIG, mx.float32, "auto")
    optimizer = MuonAdamW.for_gpt(model, kernels="auto")
    step = make_step(model, optimizer)
    rows = mx.zeros((2, 16), mx.int32)
    optimizer.init(model.parameters())
    step(iter([(rows, rows)]))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in lines] == [shape.split()[0] for shape in choices()]
    assert {shape.split()[0] for shape in choices()} == OPERATIONS
    known = len(lines)
    step(iter([(rows, rows)]))
    assert capsys.readouterr().err == ""
    shorter = rows[:, :8]
    step(iter([(shorter, shorter)]))
    lines = capsys.readouterr().err.splitlines()
    assert lines and "newton_schulz" not in {line.split()[2] for line in lines}
    assert len(choices()) == known + len(lines)


def test_inference_uses_what_training_has_chosen(monkeypatch: pytest.MonkeyPatch, new_process: NewProcess) -> None:
    compose_both_sides(monkeypatch)
    model, rows = GPT(CONFIG, mx.float32, "auto"), mx.zeros((2, 16), mx.int32)
    model.loss(rows, rows)
    file = new_process()
    content = json.loads(file.read_text())
    for entries in content.values():
        for entry in entries.values():
            entry["chosen"] = "cuda"
    file.write_text(json.dumps(content))
    with recording() as used:
        model(rows)
    assert used and set(used.values()) == {"cuda"}
    with recording() as used:
        model(rows[:, :7])
    assert used and set(used.values()) == {"mlx"}


@pytest.mark.parametrize(
    ("custom", "message"),
    [
        (Double(factor=2.1), "its results are wrong"),
        (Double(error=RuntimeError("does not compile")), "does not compile"),
        (Double(error=ValueError("[double] expected 4")), "expected 4"),
    ],
)
def test_a_wrong_kernel_is_never_chosen(custom: Double, message: str) -> None:
    with measuring(), pytest.warns(KernelWarning, match=message):
        result = operation(Double(), custom)(X)
    assert result.tolist() == (2 * X).tolist()
    assert choices()[SHAPE].chosen == "mlx"


def test_measures_inside_a_compiled_gradient() -> None:
    both = operation(Double(), Double())
    step = mx.compile(mx.value_and_grad(lambda x: (both(x) ** 2).sum()))
    with measuring():
        value, gradient = step(X)
    assert value.item() == (4 * X * X).sum().item()
    assert gradient.tolist() == (8 * X).tolist()
    assert len(choices()) == 1


def test_what_is_remembered_survives_another_process_and_garbage(new_process: NewProcess) -> None:
    both = operation(Double(), Double())
    with measuring():
        both(X)
    file = new_process()
    assert list(choices()) == [SHAPE]
    content = json.loads(file.read_text())
    (machine,) = content
    content[machine]["from another process"] = content[machine][SHAPE]
    content["another machine"] = {}
    file.write_text(json.dumps(content))
    with measuring():
        both(mx.ones((3, 3)))
    written = json.loads(file.read_text())
    assert written.keys() == {machine, "another machine"}
    assert written[machine].keys() == {SHAPE, "from another process", "double float32[4,3]"}
    forget([SHAPE])
    assert json.loads(file.read_text())[machine].keys() == {"from another process", "double float32[4,3]"}
    for garbage in ("{", "[]", f'{{"{machine}": 3}}', f'{{"{machine}": {{"a": {{}}}}}}'):
        file.write_text(garbage)
        file = new_process()
        assert choices() == {}


def test_a_choice_holds_for_the_kernels_it_was_measured_with(tmp_path: Path) -> None:
    with measuring():
        operation(Double(), Double())(X)
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "other.metal").write_text("y[0] = 0;\n")
    use_folder(tmp_path / "kernels")
    try:
        assert choices() == {}
    finally:
        use_folder(None)
    assert list(choices()) == [SHAPE]


def test_a_kernel_that_ends_the_process_is_not_tried_twice(tmp_path: Path) -> None:
    program = """
import os, sys
import mlx_autoresearch
import mlx.core as mx
from mlx_autoresearch.machine import device, system
from mlx_autoresearch.kernels.choice import choices, measuring
from mlx_autoresearch.kernels.operation import Operation
device.kernel_backend = lambda: "cuda"
crash = Operation("crash", lambda x: 2 * x, lambda x, language: os._exit(9), (0,), lambda x: (mx.ones(x.shape),))
with measuring():
    print(crash(mx.ones((2,))).tolist(), [c.measured["cuda"].failure for c in choices().values()])
"""
    environment = {**os.environ, "MLX_AUTORESEARCH_CACHE": str(tmp_path)}
    runs = [
        subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
        for _ in range(2)
    ]
    assert [run.returncode for run in runs] == [9, 0], runs[1].stderr
    assert runs[1].stdout == "[2.0, 2.0] ['the process did not survive it']\n"


def test_measuring_that_was_stopped_begins_anew(cache: Path) -> None:
    with measuring(), pytest.raises(KeyboardInterrupt):
        operation(Double(), Double(error=KeyboardInterrupt()))(X)
    assert choices() == {}
    assert [*json.loads((cache / FILE).read_text()).values()] == [{}]


def test_says_what_was_used_and_refuses_what_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    both = operation(Double(), Double())
    with recording() as used:
        both(X, implementation="mlx")
        both(X, implementation="custom")
    assert used == {SHAPE: "cuda"}
    with pytest.raises(ValueError, match=r"\[double\] implementation 'metal' is not available"):
        both(X, implementation="metal")
    with pytest.raises(ValueError, match=r"\[double\] implementation must be one of auto, mlx"):
        both(X, implementation="fast")  # type: ignore[arg-type]
    monkeypatch.setattr(device, "kernel_backend", lambda: None)
    with recording() as used:
        both(X)
    assert used == {SHAPE: "mlx"}


@pytest.mark.usefixtures("mac")
def test_after_an_update_of_macos_a_rejected_kernel_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Metal compiler is a part of macOS."""
    before = choice._machine()
    assert "macOS 15.5" in before
    monkeypatch.setenv("SIMULATED_MACOS", "26.1")
    system.macos_version.cache_clear()
    assert choice._machine() == before.replace("macOS 15.5", "macOS 26.1")
    monkeypatch.setenv("SIMULATED_BUILD", "25B78")
    system.macos_build.cache_clear()
    assert choice._machine() == before.replace("macOS 15.5 24F74", "macOS 26.1 25B78")


def test_files_that_macos_leaves_behind_are_no_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that is not Apple's there is a ._NAME beside each NAME; it used to be read, and is no text."""
    folder = shutil.copytree(registry.kernel_folder(), tmp_path / "kernels")
    monkeypatch.setattr(registry, "_folder", folder)
    names, digest = registry.kernel_names(), choice._digest(folder)
    for path in list(folder.iterdir()):
        (folder / f"._{path.name}").write_bytes(b"\0\5\x16\7\xff")
    choice._digest.cache_clear()
    assert (registry.kernel_names(), choice._digest(folder)) == (names, digest)


def measure_in_another_process(environment: dict[str, str], kernel: str) -> subprocess.Popen[str]:
    """It says "begun" when a kernel that does `kernel` runs for the first time."""
    program = f"""
import os, time
import mlx_autoresearch
import mlx.core as mx
from mlx_autoresearch.machine import device, system
from mlx_autoresearch.kernels.choice import measuring
from mlx_autoresearch.kernels.operation import Operation
device.kernel_backend = lambda: "cuda"
def custom(x, language):
    print("begun", flush=True)
    {kernel}
slow = Operation("slow", lambda x: 2 * x, custom, (0,), lambda x: (mx.ones(x.shape),))
with measuring():
    slow(mx.ones((2,)))
"""
    return subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)


def test_what_an_interrupted_training_was_measuring_is_forgotten(cache: Path) -> None:
    """The search kills its training: that is not the kernel's fault. What ended a process by itself stays known."""
    environment = dict(os.environ)
    crashed = measure_in_another_process(environment, "os._exit(9)")
    crashed.communicate()
    assert crashed.returncode == 9
    (machine,) = json.loads((cache / FILE).read_text())
    content = json.loads((cache / FILE).read_text())
    content[machine] = {"crash": content[machine].popitem()[1]}
    (cache / FILE).write_text(json.dumps(content))
    with pytest.raises(KeyboardInterrupt), choice.interruptible():
        with measure_in_another_process(environment, "time.sleep(60)") as process:
            assert process.stdout is not None and process.stdout.readline() == "begun\n"
            assert len(json.loads((cache / FILE).read_text())[machine]) == 2
            process.kill()
        raise KeyboardInterrupt
    assert [*json.loads((cache / FILE).read_text())[machine]] == ["crash"]

"""The command line: exit codes, one line for whatever goes wrong, and nothing lost when it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from filelock import FileLock

from mlx_autoresearch.cli import app as cli
from mlx_autoresearch.config import load
from mlx_autoresearch.config.load import load_config
from mlx_autoresearch.data.parts import HELD_OUT
from mlx_autoresearch.data.prepared import open_prepared
from mlx_autoresearch.errors import OUT_OF_MEMORY, RunFailed, UserError
from mlx_autoresearch.machine.paths import cache_dir
from mlx_autoresearch.training.files import CHECKPOINT
from mlx_autoresearch.training.stop import STOPS

MAIN = [sys.executable, "-W", "error", "-c", "from mlx_autoresearch.cli import main; main()"]


class Result(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Command]:
    """Runs the command line in this process, which is faster than in one of its own."""
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in STOPS}

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["mlx-autoresearch", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return Result(end.value.code if isinstance(end.value.code, int) else 0, out, err)

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration with a corpus of its own, under a path that needs quoting."""
    folder = tmp_path_factory.mktemp("a b=ü")
    for i in range(12):
        words = (f"{chr(97 + (i * j) % 26)}{chr(97 + (i + 7 * j) % 26)}" for j in range(300))
        (folder / f"{i}.txt").write_text(" ".join(words))
    path = folder / "experiment.yaml"
    path.write_text(
        f"""
data: {{source: {{kind: text, paths: ["{folder}"], val_fraction: 0.2}}, vocab_size: 270}}
model: {{n_layer: 2, n_head: 2, n_kv_head: 1, n_embd: 32, sequence_len: 32}}
train: {{max_steps: 4, total_batch_size: 256, device_batch_size: 4}}
evaluate: {{eval_tokens: 256, sequence_len: 32}}
""",
        encoding="utf-8",
    )
    return path


def one_line(result: Result, code: int = 2) -> str:
    assert result.code == code, result
    assert len(result.err.splitlines()) == 1, result.err
    return result.err.strip()


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom mlx_autoresearch.cli import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    assert "prepare" in result.stdout
    heavy = {"mlx.core", "numpy", "pydantic", "yaml", "tokenizers", "datasets", "rich"}
    assert heavy.isdisjoint(result.stderr.split())


def test_config_prints_what_loads_back(call: Command, experiment: Path, tmp_path: Path):
    result = call("config", "train.seed=7", experiment, "model.mlp=gelu")
    assert (result.code, result.err) == (0, "")
    (tmp_path / "printed.yaml").write_text(result.out)
    assert load_config(tmp_path / "printed.yaml") == load_config(experiment, ["train.seed=7", "model.mlp=gelu"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["config", "train.sed=1"], "unknown key train.sed; did you mean train.seed?"),
        (["config", "a.yaml", "b.yaml"], "expected one YAML file"),
        (["config", "train.seed"], "no configuration file train.seed; a setting is written section.key=value"),
        (["config", "/"], "cannot read configuration file /: Is a directory"),
        (["config", "data.source.column=\n\udcff"], "cannot read 'data.source.column=\\n\\udcff': the value"),
        (["train", "train.max_steps=0"], "train.max_steps must be greater than or equal to 1, got 0"),
        (["train", "data.source=text", "data.source.paths=[/nowhere]"], "/nowhere: no such file or folder"),
        (["prepare", "data.source=text", "data.source.paths=[/nowhere]"], "/nowhere: no such file or folder"),
        (["train", "--resume", "/nowhere"], "/nowhere is not a run folder"),
        (
            ["train", "--resume", "/nowhere", "a.yaml"],
            "--resume takes the configuration from the run: leave a.yaml out",
        ),
        (["evaluate", "/nowhere"], "/nowhere is not a run folder"),
        (["kernels", "verify", "--shape", "T"], "--shape: expected NAME=VALUE"),
    ],
)
def test_bad_input_ends_with_one_line(call: Command, arguments: list[str], message: str):
    result = call(*arguments)
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith(f"error: {message}")
    assert "Traceback" not in result.err


@pytest.mark.parametrize("arguments", [["foo"], ["train", "--foo"], ["evaluate"], ["evaluate", "a", "b"], []])
def test_wrong_usage_is_explained(call: Command, arguments: list[str]):
    result = call(*arguments)
    assert result.code == 2
    assert "Usage: mlx-autoresearch" in result.err + result.out


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("bad\ninput"), 2, "error: bad input"),
        (RunFailed("the loss is NaN"), 1, "error: the loss is NaN"),
        (KeyboardInterrupt("stopped after step 3"), 130, "stopped after step 3"),
        (KeyboardInterrupt(), 130, "stopped"),
        (PermissionError(13, "Permission denied", "/x"), 2, "error: /x: Permission denied"),
        (OSError(28, "No space left on device"), 2, "error: No space left on device"),
        (MemoryError("4 TiB"), 2, f"error: {OUT_OF_MEMORY} (4 TiB)"),
        (
            RuntimeError("[malloc] Unable to allocate 4 bytes."),
            2,
            f"error: {OUT_OF_MEMORY} ([malloc] Unable to allocate 4 bytes.)",
        ),
    ],
    ids=repr,
)
def test_what_each_error_ends_in(
    call: Command, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(load, "load_config", fail)
    assert one_line(call("config"), code) == line


def test_a_reader_that_has_gone_is_no_error(call: Command, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(load, "load_config", fail)
    assert call("config") == (128 + signal.SIGPIPE, "", "")


def test_a_bug_keeps_its_traceback(call: Command, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(load, "load_config", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        call("config")


def test_a_kernel_whose_compilation_was_cut_short_is_removed(
    call: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """MLX loads it in every later run, as long as it is there."""
    library = tmp_path / "lib kernel.so"
    library.touch()

    def fail(*_: object) -> None:
        raise RuntimeError(f"Could not load C++ shared library {library}: file too short")

    monkeypatch.setattr(load, "load_config", fail)
    assert one_line(call("config")).startswith("error: a kernel's compilation was cut short: run again (")
    assert not library.exists()


@pytest.mark.parametrize(
    ("redirection", "code", "err"),
    [
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        (">&- 2>&- <&-", 0, ""),
        pytest.param(
            "> /dev/full",
            2,
            "error: No space left on device\n",
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full"),
        ),
        ("| true; exit ${PIPESTATUS[0]}", 128 + signal.SIGPIPE, ""),
    ],
)
def test_output_that_goes_nowhere(redirection: str, code: int, err: str):
    script = f'unset PYTHONUNBUFFERED; "$@" {redirection}'  # what stays in a buffer fails later
    result = subprocess.run(["bash", "-c", script, "bash", *MAIN, "config"], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (code, err)
    result = subprocess.run(["bash", "-c", script, "bash", *MAIN, "--help"], capture_output=True, text=True)
    assert result.stderr == err  # the exit code is typer's


def test_a_terminal_that_lacks_a_letter_is_no_error(call: Command, experiment: Path, tmp_path: Path):
    call("prepare", experiment)
    arguments = [*MAIN, "train", str(experiment), "--runs", str(tmp_path / "ü")]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert rf"{tmp_path}/\xfc/" in result.stdout


def test_signals_wait_for_c_extensions():
    code = """
import os, signal
from mlx_autoresearch.cli.signals import uninterrupted
try:
    with uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
        print("inside")
except KeyboardInterrupt:
    print("after")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == ["inside", "after"], result


def test_prepare_says_the_sizes_once(call: Command, experiment: Path):
    result = call("prepare", experiment, "data.vocab_size=272")
    config = load_config(experiment, ["data.vocab_size=272"])
    data = open_prepared(config.data.source, vocab_size=272, cache_dir=cache_dir())
    parts = [split for name, split in data.manifest.splits.items() if name in ("train", *HELD_OUT)]
    lengths = [f"{part.bytes_per_token:.3f} bytes per token" for part in parts]
    said = [line.rpartition(", ")[2] for line in (result.out + result.err).splitlines() if "documents" in line]
    assert said == lengths


def test_prepare_train_evaluate(call: Command, experiment: Path, tmp_path: Path):
    assert one_line(call("train", experiment, "data.vocab_size=271")).endswith("run `mlx-autoresearch prepare`")
    prepared = call("prepare", experiment)
    assert prepared.code == 0
    assert "val_sha256: " in prepared.out
    assert call("prepare", experiment) == (0, prepared.out, "")

    trained = call("train", experiment, "--runs", tmp_path / "ü b")
    assert (trained.code, trained.err) == (0, "")
    (run,) = (tmp_path / "ü b").iterdir()
    assert run.name.endswith("-experiment")
    bpb = next(line.split()[1] for line in trained.out.splitlines() if line.startswith("val_bpb:"))
    evaluated = call("evaluate", run)
    assert (evaluated.code, evaluated.err) == (0, "")
    assert evaluated.out.splitlines()[0] == f"val_bpb: {bpb}"

    assert call("train", "--resume", run, "train.max_steps=5").code == 0
    assert json.loads((run / "summary.json").read_text())["num_steps"] == 5
    refused = one_line(call("train", "--resume", run, "train.seed=1"))
    assert refused.startswith("error: a resumed run keeps its configuration")
    (tmp_path / "file").touch()
    assert one_line(call("train", experiment, "--runs", tmp_path / "file")).startswith("error: cannot write to ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_resumes_as_if_it_had_not_been_stopped(
    call: Command, experiment: Path, tmp_path: Path, number: signal.Signals
):
    call("prepare", experiment)
    # A schedule that does not depend on the number of steps, so that this run may be told to be endless.
    settings = [experiment, "train.warmdown_ratio=0", "optimizer.weight_decay=0"]
    arguments = ["train", *map(str, settings), "train.max_steps=1000000", "--runs", str(tmp_path / "stopped")]
    process = subprocess.Popen([*MAIN, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("stopped/*/metrics.jsonl")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate()
    (run,) = (tmp_path / "stopped").iterdir()
    assert process.returncode == 130
    assert err.startswith("stopped after step ")
    assert err.endswith(f"continue with `mlx-autoresearch train --resume {run}`\n")
    assert (run / CHECKPOINT).is_file()

    steps = f"train.max_steps={len(losses(run)) + 10}"
    assert call("train", "--resume", run, steps).code == 0
    assert call("train", *settings, steps, "--runs", tmp_path / "whole").code == 0
    (whole,) = (tmp_path / "whole").iterdir()
    assert losses(run) == losses(whole)


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_preparing_leaves_nothing_half_made(experiment: Path, tmp_path: Path, number: signal.Signals):
    (tmp_path / "prepared").mkdir()
    with FileLock(tmp_path / "prepared" / ".lock"):  # so that it waits to be stopped
        process = subprocess.Popen(
            [*MAIN, "prepare", str(experiment)],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"MLX_AUTORESEARCH_CACHE": str(tmp_path)},
        )
        assert process.stderr is not None
        assert process.stderr.readline().startswith("waiting for another process")
        process.send_signal(number)
        _, err = process.communicate()
    assert process.returncode == 130
    assert err == "stopped; nothing half-made is kept: run `mlx-autoresearch prepare` again\n"
    assert [path.name for path in (tmp_path / "prepared").iterdir()] == [".lock"]

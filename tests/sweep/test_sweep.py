from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState

from mlx_autoresearch.cli.app import app
from mlx_autoresearch.config.load import load_config
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.config.yaml_text import dump_yaml
from mlx_autoresearch.data.prepare import prepare
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.ledger.ledger import Ledger, Trial
from mlx_autoresearch.machine.paths import cache_dir
from mlx_autoresearch.report import write as report_write
from mlx_autoresearch.sweep import plots, worker
from mlx_autoresearch.sweep.spec import Choices, Range, load_sweep, parse_axis, short_names
from mlx_autoresearch.sweep.study import decode, encode
from mlx_autoresearch.sweep.sweep import Result, open_sweep, work, write_up
from mlx_autoresearch.sweep.view import Shown
from mlx_autoresearch.training.data import open_data
from mlx_autoresearch.trials.trial import TrialFailed

ROOT = Path(__file__).parents[2]


class Lines(Shown):
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration that trains in half a second, its data prepared."""
    folder = tmp_path_factory.mktemp("base")
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 8))) for _ in range(300)]
    (folder / "text").mkdir()
    for i in range(40):
        (folder / "text" / f"{i}.txt").write_text(" ".join(rng.choices(words, k=200)) + ".\n")
    values = {
        "data": {"source": {"kind": "text", "paths": [str(folder / "text")], "val_fraction": 0.2}, "vocab_size": 300},
        "model": {"n_layer": 2, "n_head": 2, "n_kv_head": 1, "n_embd": 32, "sequence_len": 32},
        "train": {"max_steps": 20, "total_batch_size": 256, "device_batch_size": 4},
        "evaluate": {"eval_tokens": 512, "sequence_len": 32},
    }
    source = Config.model_validate(values).data.source
    prepare(source, vocab_size=300, cache_dir=cache_dir(), quiet=True)
    (folder / "base.yaml").write_text(dump_yaml(values))
    return folder / "base.yaml"


Sweeper = Callable[..., Path]


@pytest.fixture
def file(tmp_path: Path, base: Path) -> Sweeper:
    """Writes a sweep's file over the base, and returns its path."""

    def write(**fields: Any) -> Path:
        path = tmp_path / "lr.yaml"
        path.write_text(dump_yaml({"config": str(base), "space": {"optimizer.matrix_lr": [0.01, 0.1, 0.04]}} | fields))
        return path

    return write


def bpb(config: Config, seed: int) -> float:
    """Best at a matrix_lr of 0.04, with a little noise from the seed."""
    return 2 + abs(math.log(config.optimizer.matrix_lr / 0.04)) + 0.001 * (seed % 7)


def free(config: Config, *, seed: int, folder: Path, code: Path | None, limits: object, say: Any) -> Trial:
    """In the place of `run_trial`: costs nothing."""
    folder.mkdir(parents=True)
    (folder / "checkpoint.safetensors").write_bytes(b"weights")
    return Trial(seed, bpb(config, seed), 10, 1000, 1.0, 2.0, 100.0, 1.0, str(folder))


@pytest.fixture(autouse=True)
def _free(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Trials that cost nothing, and pages for those tests only that ask for them."""
    monkeypatch.setattr(worker, "run_trial", free)
    if "pages" not in request.fixturenames:
        monkeypatch.setattr(report_write, "write", lambda *_, **__: None)
        monkeypatch.setattr(plots, "draw", lambda _: [])


@pytest.fixture
def pages() -> None:
    """Asks for report.html and the plots."""


def sweep(file: Path, storage: str | None = None, shown: Shown | None = None) -> Result:
    queue = open_sweep(file, home=file.parent / "home", storage=storage)
    work(queue, shown or Lines())
    return write_up(queue)


def rows(home: Path) -> list[dict[str, str]]:
    lines = [line.split("\t") for line in (home / "table.tsv").read_text().splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


class TestFile:
    def test_a_grid_has_every_combination_in_order(self, file: Sweeper) -> None:
        space = {"optimizer.matrix_lr": [0.1, 0.01], "model.n_layer": {"low": 1, "high": 5, "step": 2}}
        points = load_sweep(file(space=space)).points()
        assert [tuple(p.values()) for p in points] == [(a, b) for a in (0.1, 0.01) for b in (1, 3, 5)]

    def test_random_points_are_in_range_and_the_same_every_time(self, file: Sweeper) -> None:
        space = {
            "optimizer.matrix_lr": {"low": 0.001, "high": 0.1, "log": True},
            "train.warmdown_ratio": {"low": 0.2, "high": 0.8},
            "model.n_layer": {"low": 1, "high": 3},
            "train.total_batch_size": {"low": 128, "high": 512, "step": 128},
            "model.mlp": ["relu2", "swiglu"],
        }
        path = file(method="random", trials=300, space=space)
        points = load_sweep(path).points()
        assert points == load_sweep(path).points()
        lrs = sorted(p["optimizer.matrix_lr"] for p in points)
        assert 0.001 <= lrs[0] < 0.002 and 0.05 < lrs[-1] <= 0.1
        assert 0.007 < lrs[150] < 0.014  # the middle of a logarithmic range
        assert all(0.2 <= p["train.warmdown_ratio"] <= 0.8 for p in points)
        assert {p["model.n_layer"] for p in points} == {1, 2, 3}
        assert {p["train.total_batch_size"] for p in points} == {128, 256, 384, 512}
        assert Counter(p["model.mlp"] for p in points)["relu2"] == pytest.approx(150, abs=40)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"space": {}}, "names no setting"),
            ({"space": {"optimizer.matrix_lr": []}}, "empty list"),
            ({"space": {"optimizer.matrix_lr": [0.1, 0.1]}}, "twice"),
            ({"space": {"optimizer.matrix_rate": [0.1]}}, "did you mean optimizer.matrix_lr"),
            ({"settings": {"train.max_step": 3}}, "did you mean train.max_steps"),
            ({"space": {"optimizer.matrix_lr": {"low": 0.1, "high": 0.01}}, "method": "random"}, "less than high"),
            ({"space": {"optimizer.matrix_lr": {"low": 0.0, "high": 1.0, "log": True}}}, "must be positive"),
            ({"space": {"optimizer.matrix_lr": {"low": 0.1, "high": 1.0}}}, "needs a list of values or a step"),
            ({"space": {"optimizer.matrix_lr": {"from": 1}}}, "low and high"),
            ({"space": {"optimizer.matrix_lr": 0.1}}, "must be a list of values"),
            ({"space": {"train.seed": [1, 2]}}, "set by seeds"),
            ({"method": "random"}, "trials is missing"),
            ({"trials": 3}, "no effect on a grid"),
            ({"method": "gird"}, "method must be"),
            ({"seeds": [1, 1]}, "differ"),
            ({"seed": [1]}, "did you mean seeds"),
            ({"prune": {"after": 2.0}}, "prune.after must be"),
            ({"config": "nowhere.yaml"}, "no configuration file"),
            ({"space": {"train.total_batch_size": [100]}}, "the point train.total_batch_size=100 cannot be trained"),
            ({"space": {"data.vocab_size": [301]}}, "not prepared"),
        ],
    )
    def test_what_is_wrong_is_said_in_one_line(self, file: Sweeper, fields: dict[str, Any], message: str) -> None:
        path = file(**fields)
        with pytest.raises(UserError, match=message) as error:
            open_sweep(path, home=path.parent / "home")
        assert "\n" not in str(error.value)

    def test_the_sweeps_in_configs_are_sound(self) -> None:
        files = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))
        assert len(files) >= 3
        for path in files:
            loaded = load_sweep(path)
            worker.config_at(loaded, loaded.points()[0])

    def test_values_that_optuna_does_not_know_come_back_as_they_were(self) -> None:
        axis = parse_axis("optimizer.adam_betas", [[0.8, 0.95], [0.9, 0.99], None, 1, "a"])
        assert isinstance(axis, Choices)
        assert [decode(axis, encode(axis, value)) for value in axis.values] == list(axis.values)
        assert Range(1, 7, 3).points == [1, 4, 7]
        assert short_names(["a.x", "b.x", "b.y"]) == {"a.x": "a.x", "b.x": "b.x", "b.y": "y"}


class TestWork:
    def test_every_point_is_tried_with_every_seed(self, file: Sweeper) -> None:
        result = sweep(file(seeds=[1, 3]))
        assert result.values == {"optimizer.matrix_lr": 0.04}
        assert result.val_bpb == pytest.approx(2.002)
        table = rows(result.home)
        assert [row["optimizer.matrix_lr"] for row in table] == ["0.04", "0.1", "0.01"]
        assert all(float(row["deviation"]) == pytest.approx(0.0014, abs=1e-4) for row in table)
        records = Ledger(result.home / "ledger.jsonl").records()
        assert [(r.status, r.overrides["optimizer.matrix_lr"]) for r in records] == [
            ("keep", 0.01),
            ("keep", 0.1),
            ("keep", 0.04),
        ]
        assert [t.run for t in records[2].trials] == ["trials/0002/1", "trials/0002/3"]

    def test_the_page_has_the_plots_and_only_the_best_checkpoints_stay(self, file: Sweeper, pages: None) -> None:
        space = {"optimizer.matrix_lr": [0.01, 0.04, 0.1], "optimizer.adam_betas": [[0.8, 0.95], [0.9, 0.99]]}
        home = sweep(file(space=space)).home
        page = (home / "report.html").read_text()
        for name in ("slices", "parallel", "importance"):
            assert (home / f"{name}.png").stat().st_size > 5000
        assert page.count("data:image/png;base64,") == 3
        assert [p.parts[-3] for p in home.glob("trials/*/*/checkpoint.safetensors")] == ["0002"]

    def test_it_can_be_stopped_and_continued(self, file: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = []

        def stopped(config: Config, **rest: Any) -> Trial:
            calls.append(config.optimizer.matrix_lr)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return free(config, **rest)

        monkeypatch.setattr(worker, "run_trial", stopped)
        path = file()
        with pytest.raises(KeyboardInterrupt, match="same command"):
            sweep(path)
        result = sweep(path)
        assert calls == [0.01, 0.1, 0.04, 0.1]  # what was begun goes to the end of the queue
        assert len(rows(result.home)) == 3
        assert len(Ledger(result.home / "ledger.jsonl").records()) == 3

    def test_a_finished_sweep_runs_nothing_again(self, file: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
        path = file()
        before = sweep(path)
        monkeypatch.setattr(worker, "run_trial", None)
        assert sweep(path) == before

    def test_failures_are_recorded_and_the_sweep_goes_on(self, file: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(config: Config, **rest: Any) -> Trial:
            if config.optimizer.matrix_lr == 0.01:
                raise TrialFailed("nan", "the loss is NaN at step 3")
            return free(config, **rest)

        monkeypatch.setattr(worker, "run_trial", fails)
        shown = Lines()
        path = file(
            method="random",
            trials=12,
            space={"optimizer.matrix_lr": [0.01, 0.04], "train.total_batch_size": [100, 256]},
        )
        home = sweep(path, shown=shown).home
        records = Ledger(home / "ledger.jsonl").records()
        by_status = {status: [r for r in records if r.status == status] for status in ("crash", "rejected", "keep")}
        assert all(r.reason == "nan: the loss is NaN at step 3" for r in by_status["crash"])
        assert all(r.overrides["train.total_batch_size"] == 100 for r in by_status["rejected"])
        assert "multiple" in by_status["rejected"][0].reason
        assert len(by_status["crash"]) > 0 and len(by_status["keep"]) == 1
        assert len(records) == 12
        assert any("failed: nan: the loss is NaN" in line for line in shown.lines)

    def test_tpe_learns_and_more_trials_can_be_added(self, file: Sweeper) -> None:
        space = {"optimizer.matrix_lr": {"low": 0.0001, "high": 10.0, "log": True}}
        first = sweep(file(method="tpe", trials=12, space=space))
        assert len(rows(first.home)) == 12
        result = sweep(file(method="tpe", trials=30, space=space))
        assert len(rows(result.home)) == 30
        values = [
            math.log(r.overrides["optimizer.matrix_lr"] / 0.04) for r in Ledger(result.home / "ledger.jsonl").records()
        ]
        assert sum(map(abs, values[15:])) / 15 < sum(map(abs, values[:10])) / 10

    def test_another_sweep_of_the_same_name_is_refused(self, file: Sweeper, base: Path) -> None:
        sweep(file())
        with pytest.raises(UserError, match="another space"):
            sweep(file(space={"optimizer.matrix_lr": [0.01, 0.1]}))
        with pytest.raises(UserError, match="another seeds"):
            sweep(file(seeds=[5]))

    def test_time_left_is_told(self, file: Sweeper) -> None:
        shown = Lines()
        sweep(file(), shown=shown)
        assert [line.split()[0] for line in shown.lines] == ["[1/3]", "[2/3]", "[3/3]"]
        assert "left" in shown.lines[0] and "left" not in shown.lines[2]


class TestPruning:
    def test_a_trial_above_the_median_is_stopped(self, file: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
        finished: list[float] = []

        def slow(config: Config, *, seed: int, folder: Path, say: Any, **rest: Any) -> Trial:
            loss = bpb(config, 0)

            def steps() -> None:
                for step in range(1, 21):
                    say({"event": "step", "step": step, "loss": loss, "remaining": 0.0})

            thread = threading.Thread(target=steps)
            thread.start()
            try:
                time.sleep(0.05 if loss < 3 else 20)
            finally:
                thread.join()
            finished.append(config.optimizer.matrix_lr)
            return free(config, seed=seed, folder=folder, say=say, code=None, limits=None)

        monkeypatch.setattr(worker, "run_trial", slow)
        space = {"optimizer.matrix_lr": [0.04, 0.05, 0.03, 0.001, 0.045]}
        before = signal.getsignal(signal.SIGUSR1)
        result = sweep(file(space=space, prune={"trials": 3, "after": 0.5}, seeds=[1, 2]))
        assert signal.getsignal(signal.SIGUSR1) == before
        assert finished == [0.04, 0.04, 0.05, 0.05, 0.03, 0.03, 0.045, 0.045]
        pruned = [r for r in Ledger(result.home / "ledger.jsonl").records() if r.val_bpb is None]
        assert [(r.overrides["optimizer.matrix_lr"], r.status) for r in pruned] == [(0.001, "discard")]
        assert "stopped at 50%" in pruned[0].reason

    def test_losses_are_compared_in_bits_per_byte(self, base: Path) -> None:
        config = load_config(base)
        train = open_data(config).split("train")
        tokens = np.asarray(train.tokens)
        bits = len(tokens[tokens != open_data(config).tokenizer.bos_id]) / math.log(2)  # of a nat for every token
        assert worker._bits_per_nat(config) * train.info.bytes == pytest.approx(bits)


STUB = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import mlx_autoresearch
from mlx_autoresearch.sweep import worker
from tests.sweep import test_sweep
def slow(config, **rest):
    print("begun", flush=True)
    time.sleep({seconds})
    return test_sweep.free(config, **rest)
worker.run_trial = slow
queue = test_sweep.open_sweep({file!r}, home=Path({file!r}).parent / "home", storage={storage!r})
test_sweep.work(queue, test_sweep.Lines())
"""


def start(file: Path, seconds: float, storage: str | None = None) -> subprocess.Popen[str]:
    code = STUB.format(tests=str(ROOT), file=str(file), seconds=seconds, storage=storage)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


class TestProcesses:
    @pytest.mark.parametrize("storage", [False, True])
    def test_what_a_killed_process_had_begun_is_run_again(self, file: Sweeper, tmp_path: Path, storage: bool) -> None:
        url = f"sqlite:///{tmp_path}/study.db" if storage else None
        path = file()
        with start(path, 60, url) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            process.send_signal(signal.SIGKILL)
        result = sweep(path, url)
        assert len(rows(result.home)) == 3
        assert sorted(r.overrides["optimizer.matrix_lr"] for r in Ledger(result.home / "ledger.jsonl").records()) == [
            0.01,
            0.04,
            0.1,
        ]

    def test_two_processes_share_the_work_and_do_nothing_twice(self, file: Sweeper) -> None:
        path = file(space={"optimizer.matrix_lr": [0.01 * i for i in range(1, 9)]})
        processes = [start(path, 0.5) for _ in range(2)]
        begun = [len(p.communicate(timeout=120)[0].split("begun")) - 1 for p in processes]
        assert [p.returncode for p in processes] == [0, 0]
        assert sum(begun) == 8 and min(begun) > 0
        assert len({r.number for r in Ledger(path.parent / "home" / "ledger.jsonl").records()}) == 8

    def test_a_live_process_keeps_its_trial(self, file: Sweeper) -> None:
        path = file()
        with start(path, 1.5) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            queue = open_sweep(path, home=path.parent / "home")
            assert queue.requeue_dead() == 0
            process.communicate(timeout=60)
        assert queue.count(TrialState.COMPLETE) == 3

    def test_a_journal_that_a_power_cut_tore_is_mended(self, file: Sweeper) -> None:
        path = file()
        before = sweep(path)
        with (before.home / "journal.log").open("a") as journal:
            journal.write('{"op_code": 5, "work')
        assert sweep(path) == before


class TestStorage:
    @pytest.mark.parametrize(
        "url", ["nothing", "postgresql://me:secret@127.0.0.1:1/x", "sqlite:////no/such/folder/x.db"]
    )
    def test_a_bad_storage_is_one_line_without_the_password(self, file: Sweeper, url: str) -> None:
        with pytest.raises(UserError, match="the storage") as error:
            sweep(file(), url)
        assert "\n" not in str(error.value) and "secret" not in str(error.value)

    def test_a_missing_driver_is_named(self, file: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "psycopg", None)  # as if it were not installed
        with pytest.raises(UserError, match=r"needs its database's driver: pip install 'psycopg\[binary\]'"):
            sweep(file(), "postgresql://me@127.0.0.1:1/x")

    def test_a_database_takes_the_place_of_the_journal(self, file: Sweeper, tmp_path: Path) -> None:
        result = sweep(file(storage=f"sqlite:///{tmp_path}/study.db"))
        assert result.values == {"optimizer.matrix_lr": 0.04}
        assert not (result.home / "journal.log").exists()


class TestCommand:
    def test_a_sweep_from_the_command_line(
        self, file: Sweeper, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        app(["sweep", str(file()), "--runs", str(tmp_path / "runs")], standalone_mode=False)
        out = capsys.readouterr().out
        assert "best_val_bpb: 2.000000\n" in out
        assert "best: optimizer.matrix_lr=0.04\n" in out
        assert (tmp_path / "runs" / "lr" / "table.tsv").is_file()

    def test_real_training(self, file: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
        from mlx_autoresearch.trials.trial import run_trial

        monkeypatch.setattr(worker, "run_trial", run_trial)
        result = sweep(file(space={"optimizer.matrix_lr": [0.04, 0.0]}))
        runs = [json.loads(p.read_text()) for p in sorted(result.home.glob("trials/*/42/summary.json"))]
        assert len(runs) == 2
        assert result.val_bpb == min(run["val_bpb"] for run in runs)
        assert result.values == {"optimizer.matrix_lr": 0.04}
        assert os.listdir(result.home / "locks") == ["sweep.lock"]

    def test_a_full_disk_costs_no_point(self, file: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(config: Config, **rest: Any) -> Trial:
            raise OSError(28, "No space left on device")

        path = file()
        monkeypatch.setattr(worker, "run_trial", full)
        with pytest.raises(OSError, match="No space"):
            sweep(path)
        monkeypatch.setattr(worker, "run_trial", free)
        assert [row["status"] for row in rows(sweep(path).home)] == ["complete"] * 3

"""The notebook is committed without outputs and runs from top to bottom.

Its cells run in a fresh interpreter without Jupyter: no kernel to start, and a warning is an error, such as the one
that a notebook gets which imports mlx before this package.
"""

import json
import math
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from mlx_autoresearch import Run
from mlx_autoresearch.machine.device import is_gpu

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]

# The last cell is an expression, which a notebook would show.
DRIVER = """
import json, sys
*cells, last = json.load(sys.stdin)
names = {}
for number, source in enumerate(cells, 1):
    exec(compile(source, f"<code cell {number}>", "exec"), names)
got = {name: names[name] for name in ("BUDGET", "losses", "summary", "ids")}
got["val_bpb"] = names["bpb"].val_bpb
got["curve"] = len(names["axes"].lines[0].get_xdata())
got["updates"] = names["optimizer"].state["scalars"]["step"].item()
got["last"] = eval(last, names)
print(json.dumps(got))
"""


def test_cells_are_committed_as_they_are_before_a_run():
    assert [cell["id"] for cell in CELLS if cell.get("outputs") or cell.get("execution_count")] == []
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)
    text = "".join("".join(cell["source"]) for cell in CELLS)
    assert not re.search(r"/(home|Users|root|tmp|usr|opt|work)/", text)


def test_notebook_runs_from_top_to_bottom(tmp_path: Path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    settings = {
        "QUICKSTART_BUDGET": "1",
        "QUICKSTART_TEXT": sysconfig.get_path("stdlib") + "/t*.py",
        "MPLBACKEND": "Agg",
    }
    if not is_gpu():
        settings["MLX_DISABLE_COMPILE"] = "1"  # for a CPU each of some 80 kernels takes g++ a second
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", DRIVER],
        input=json.dumps(CODE),
        cwd=folder,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout.splitlines()[-1])

    assert got["BUDGET"] == 1
    losses, summary = got["losses"], got["summary"]
    assert math.isclose(losses[0], math.log(1024), rel_tol=1e-3)
    assert min(losses[1:]) < losses[0]
    assert got["updates"] == got["curve"] == len(losses)
    assert len(got["ids"]) == 160
    assert "def " in done.stdout
    for bpb in (got["val_bpb"], summary["val_bpb"]):
        assert 0.5 < bpb < 4.5  # untrained: 10 bits a token of some 2.6 bytes
    assert got["last"] is True

    run = Run.open(folder / summary["run"])
    assert run.path.resolve().parent == tmp_path / "runs"
    assert run.config().train.time_budget == 1
    assert len(run.metrics()) == summary["num_steps"]


def test_settings_have_defaults(monkeypatch: pytest.MonkeyPatch):
    for name in ("QUICKSTART_BUDGET", "QUICKSTART_TEXT"):
        monkeypatch.delenv(name, raising=False)
    names: dict = {}
    exec(CODE[0], names)
    assert names["BUDGET"] == 60
    assert names["TEXT"] == sysconfig.get_path("stdlib") + "/*.py"

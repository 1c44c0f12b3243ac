from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.ledger.ledger import Ledger
from mlx_autoresearch.methods import FIRST
from mlx_autoresearch.report import figures
from mlx_autoresearch.report.history import History
from mlx_autoresearch.report.page import page
from mlx_autoresearch.report.write import write
from mlx_autoresearch.research.status import status_text
from tests.support.fake_research import write_research
from tests.support.records import record

HOSTILE = '</title></script><script>alert("x")</script><img src=x onerror=alert(1)>\'"` & $x_1^2$ '
HOSTILE += "\x1b[31m\u202e\ud800 漢字 🎉"
_VOID = {"meta", "br", "img", "input", "path", "circle"}


class Page(HTMLParser):
    """Checks that tags are balanced; keeps elements by name, with their attributes, and the text."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_research(tmp_path_factory.mktemp("research") / "nov22")


@pytest.fixture(scope="module")
def written(night: Path) -> tuple[Path, Path]:
    return write(night)


class TestHistory:
    def test_counts_and_cost_are_those_of_the_ledger(self, night: Path) -> None:
        history = History.read(night)
        assert sum(history.counts.values()) == 126
        assert (history.counts["keep"], history.counts["discard"]) == (28, 94)
        lines = [json.loads(line) for line in (night / "ledger.jsonl").read_text().splitlines()]
        assert history.cost["runs"] == sum(len(line["trials"]) for line in lines)
        assert history.cost["hours"] == pytest.approx(sum(line["seconds"] for line in lines) / 3600)

    def test_gains_add_up_to_the_whole_improvement_by_kind_and_by_experiment(self, night: Path) -> None:
        history = History.read(night)
        assert history.best is not None and history.best.val_bpb is not None
        whole = 2.860 - history.best.val_bpb
        assert sum(history.gains.values()) == pytest.approx(whole)
        assert sum(kind.gain for kind in history.kinds) == pytest.approx(whole)
        assert sum(kind.tried for kind in history.kinds) == 126
        assert sum(kind.kept for kind in history.kinds) == 28

    def test_noise_is_pooled_over_seeds(self, tmp_path: Path) -> None:
        repeated = [record(0, {42: 1.0, 43: 1.2}), record(1, {42: 3.0, 43: 3.0, 44: 3.3})]
        history = History(tmp_path, [*repeated, record(2, {42: 9.0})])
        assert history.sigma == pytest.approx(((0.02 + 0.06) / 3) ** 0.5)
        assert History(tmp_path, [record(0, {42: 1.0})]).sigma is None

    def test_a_remeasurement_corrects_the_staircase_and_is_nobodys_gain(self, tmp_path: Path) -> None:
        records = [
            record(0, {42: 3.0}),
            record(1, {42: 2.0}),
            record(2, {42: 2.5}, status="discard"),
            record(1, {42: 2.2}, event="remeasure"),
            record(3, {42: 2.1}),
        ]
        history = History(tmp_path, records)
        assert [(s.number, s.val_bpb) for s in history.steps] == [(0, 3.0), (1, 2.0), (2, 2.2), (3, 2.1)]
        assert history.gains == {1: pytest.approx(1.0), 3: pytest.approx(0.1)}
        assert history.counts == {"keep": 2, "discard": 1}

    def test_curves_are_thinned_and_damaged_lines_passed_over(self, night: Path, tmp_path: Path) -> None:
        home = tmp_path / "copy"
        shutil.copytree(night, home)
        history = History.read(home)
        kept = history.kept[3]
        metrics = home / kept.trials[0].run / "metrics.jsonl"
        whole = history.curve(kept, points=1000)
        assert len(whole) == 180
        damage = '{"progress": 1, "smooth_loss": NaN}\n[]\n' + "[" * 50_000 + f'\n{{"progress": {10**400}}}\n{{"progr'
        metrics.write_text(metrics.read_text() + damage)
        assert history.curve(kept, points=1000) == whole
        thin = history.curve(kept, points=50)
        assert len(thin) <= 50 and thin[-1] == whole[-1]

    def test_status_page_and_picture_give_one_improvement_with_a_demotion_too(
        self, tmp_path: Path, figure: list[Any]
    ) -> None:
        """The best was lucky when it was kept, and the one before it is the best again."""
        home = tmp_path / "home"
        home.mkdir()
        ledger = Ledger(home / "ledger.jsonl")
        kept = [record(0, {42: 3.0}), record(1, {46: 2.0}), record(2, {50: 1.0})]
        kept = [replace(r, commit=f"{r.number}" * 40, parent=f"{max(r.number - 1, 0)}" * 40) for r in kept]
        for new in (
            kept[0],
            kept[1],
            replace(record(1, {50: 2.3, 51: 2.5}, event="remeasure"), commit=kept[1].commit),
            kept[2],
            replace(record(2, {54: 2.9}, event="remeasure"), commit=kept[2].commit),
            replace(kept[2], event="demote", parent=kept[1].commit, status="discard", trials=[], val_bpb=None),
            replace(record(1, {54: 2.4}, event="remeasure"), commit=kept[1].commit),
        ):
            ledger.append(new)
        (home / "research.yaml").write_text(
            "tag: t\nproposer: {kind: search, space: {model.mlp: {choices: [gelu, swiglu]}}}\n"
        )
        history = History.read(home)
        assert ledger.best() == history.best == kept[1]
        status = dict(line.split(":", 1) for line in status_text(home).splitlines() if re.match(r"\w+:", line))
        assert status["improvement"].strip() == "20.0%"
        assert status["start_val_bpb"].strip() == "3.000000"
        assert status["best_val_bpb"].strip() == "2.400000 (measured afresh at 3 seeds)"
        assert "1 keep, 1 discard" in status["decisions"]
        text = page(history, "t")
        assert "<b>-20.0%</b>" in text and "<b>2.4000</b>" in text and "from 3.0000" in text
        figures.progress_png(history, tmp_path / "p.png", "t")
        assert "3.000 → 2.400 (-20.0%)" in figure[0].axes[0].get_title(loc="right")
        assert [(s.number, s.val_bpb) for s in history.steps][-2:] == [(2, pytest.approx(2.4))] * 2
        rows = (home / "results.tsv").read_text().splitlines()
        assert [row.split("\t")[3] for row in rows[1:]] == ["keep", "keep", "discard"]

    def test_a_night_of_bad_ideas_is_on_the_scale(self, tmp_path: Path) -> None:
        bad = [record(n, {42: 2.0 + n / 20}, status="discard") for n in range(2, 22)]
        history = History(tmp_path, [record(0, {42: 3.0}), record(1, {42: 2.0}), *bad])
        assert sum(r.val_bpb > history.scale[1] for r in bad if r.val_bpb is not None) <= 2
        cheat = History(tmp_path, [*history.records, record(30, {42: 0.0}, status="rejected")])
        assert cheat.scale[0] == 2.0


class TestPage:
    def test_it_is_one_file_that_fetches_nothing(self, written: tuple[Path, Path]) -> None:
        text = written[1].read_text(encoding="utf-8")
        assert len(text.encode()) < 1_500_000
        parsed = Page(text)
        for _, attributes in parsed.elements:
            for name in ("src", "href", "srcset", "action", "xlink:href"):
                assert (attributes.get(name) or "#").startswith(("#", "data:"))
        assert not re.search(r"url\(|@import|//[a-z]", text.split("</style>")[0])
        assert not parsed.all("link") and not parsed.all("iframe")

    def test_only_our_own_script_may_run(self, written: tuple[Path, Path]) -> None:
        text = written[1].read_text(encoding="utf-8")
        (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        (policy,) = [m["content"] for m in Page(text).all("meta") if "http-equiv" in m]
        assert policy is not None
        assert policy.startswith("default-src 'none'")
        assert f"script-src 'sha256-{digest}'" in policy

    def test_every_experiment_has_its_row_its_point_and_its_diff(self, written: tuple[Path, Path]) -> None:
        parsed = Page(written[1].read_text(encoding="utf-8"))
        rows = [a["id"] for a in parsed.all("tr") if "data-status" in a]
        assert rows == [f"e{n}" for n in range(127)]
        assert {a["href"] for a in parsed.all("a")} == {f"#e{n}" for n in range(127)}
        assert len([a for a in parsed.all("span") if a.get("class") == "add"]) >= 126
        assert len(parsed.all("details")) == 127
        assert len([a for a in parsed.all("path") if a.get("class") in ("best", "curve")]) == 1 + 29

    def test_what_an_agent_wrote_stays_text(self, tmp_path: Path) -> None:
        home = write_research(tmp_path / "h", experiments=6, kept=2)
        history = History.read(home)
        hostile = [
            replace(r, hypothesis=HOSTILE, kind=HOSTILE, reason=HOSTILE, proposer=HOSTILE) for r in history.records
        ]
        hostile = [replace(r, overrides={HOSTILE.replace("\ud800", ""): HOSTILE}) for r in hostile]
        for r in hostile:
            (history.folder(r) / "diff.patch").write_bytes(f"+{HOSTILE}\n".encode("utf-8", "surrogatepass") + b"\xff\n")
        text = page(History(home, hostile), HOSTILE)
        text.encode()
        parsed = Page(text)
        assert len(parsed.all("script")) == 1 and not parsed.all("img")
        assert not [a for _, attributes in parsed.elements for a in attributes if a.startswith("on")]
        assert "\x1b" not in text and "\u202e" not in text
        assert 'alert("x")' in "".join(parsed.text)
        figures.progress_png(History(home, hostile), tmp_path / "x.png", HOSTILE)

    @pytest.mark.parametrize("place", [(Figure, "savefig"), (Path, "write_text")], ids=["picture", "page"])
    def test_a_report_that_is_cut_short_leaves_the_one_before(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: tuple[type, str]
    ) -> None:
        """Several processes may write it at once, and someone may read it meanwhile."""
        Ledger(tmp_path / "ledger.jsonl").append(record(0, {42: 3.0}))
        files = write(tmp_path)
        before = [file.read_bytes() for file in files]

        def cut_short(*arguments: Any, **_: Any) -> None:
            target = next(argument for argument in arguments if isinstance(argument, Path))
            target.write_bytes(b"half")
            raise KeyboardInterrupt

        monkeypatch.setattr(*place, cut_short)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path)
        assert [file.read_bytes() for file in files] == before

    def test_an_empty_ledger_makes_a_page_too(self, tmp_path: Path) -> None:
        (tmp_path / "ledger.jsonl").write_text("")
        _, document = write(tmp_path)
        Page(document.read_text())

    def test_a_single_baseline_makes_a_page_too(self, tmp_path: Path) -> None:
        Ledger(tmp_path / "ledger.jsonl").append(record(0, {42: 3.0}))
        _, document = write(tmp_path)
        Page(document.read_text())

    def test_a_folder_without_a_ledger_is_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="has no ledger"):
            write(tmp_path)

    def test_numbers_of_another_metric_are_marked(self, tmp_path: Path) -> None:
        assert "Measured with" not in write(write_research(tmp_path / "new", experiments=3, kept=1))[1].read_text()
        (tmp_path / "old").mkdir()
        Ledger(tmp_path / "old" / "ledger.jsonl").append(record(0, {42: 3.0}, methods=FIRST))
        assert "Measured with version 1 of the metric (now 2)" in write(tmp_path / "old")[1].read_text()

    def test_the_holdout_is_shown_where_it_was_scored(self, tmp_path: Path) -> None:
        home = write_research(tmp_path / "h", experiments=4, kept=1)
        assert "Holdout" not in page(History.read(home), "t")
        (home / "holdout.json").write_text('{"best_holdout_bpb": 2.34567}')
        assert "2.3457" in page(History.read(home), "t")


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn, kept for a look."""
    drawn = []
    original = figures.figure

    @contextmanager
    def kept(*arguments: Any) -> Iterator[Any]:
        with original(*arguments) as fig:
            drawn.append(fig)
            yield fig

    monkeypatch.setattr(figures, "figure", kept)
    return drawn


class TestPicture:
    def test_it_is_readable_at_the_width_of_a_readme(self, written: tuple[Path, Path]) -> None:
        height, width, _ = matplotlib.image.imread(written[0]).shape
        assert width >= 1600 and 0.4 < height / width < 0.8

    def test_a_val_bpb_of_zero_is_on_the_scale(self, tmp_path: Path, figure: list[Any]) -> None:
        """Zero is a number, and the best that there is: not a result that is missing."""
        history = History(tmp_path, [record(0, {42: 1.0}), record(1, {42: 0.0}, status="discard")])
        figures.progress_png(history, tmp_path / "p.png", "")
        (legend,) = figure[0].legends
        named = {text.get_text() for text in legend.get_texts()}
        assert "discarded (1)" in named
        assert not any(name.startswith("above") for name in named)

    @pytest.mark.parametrize("seed", range(3))
    def test_labels_overlap_neither_each_other_nor_lines_and_stay_inside(
        self, tmp_path: Path, figure: list[Any], seed: int
    ) -> None:
        history = History.read(write_research(tmp_path / "h", seed=seed))
        figures.progress_png(history, tmp_path / "p.png", "research/nov22")
        figure[0].canvas.draw()
        (axes,) = figure[0].axes
        labels = [text for text in axes.texts if isinstance(text, Annotation)]
        assert len(labels) == 28
        boxes = [label.get_window_extent() for label in labels]
        inside = axes.get_window_extent()
        for a, b in itertools.combinations(boxes, 2):
            assert not a.padded(-1).overlaps(b.padded(-1))  # whole pixels
        for box in boxes:
            assert inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0
        leaders = [line for line in axes.lines if line.get_linewidth() == 0.5]
        assert len(leaders) == 28
        for line, box in itertools.product(leaders, boxes):
            (x, top), (_, bottom) = axes.transData.transform(line.get_xydata())
            assert not (box.x0 < x < box.x1 and bottom < box.y1 and box.y0 < top)

    def test_the_same_ledger_gives_the_same_bytes(
        self, night: Path, written: tuple[Path, Path], tmp_path: Path
    ) -> None:
        figures.progress_png(History.read(night), tmp_path / "again.png", "research/nov22")
        assert (tmp_path / "again.png").read_bytes() == written[0].read_bytes()

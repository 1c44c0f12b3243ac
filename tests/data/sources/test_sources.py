"""Sources in general, and the standard library."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from mlx_autoresearch.data.sources import Gutenberg, Hub, Source, SourceConfig, Stdlib, Text
from mlx_autoresearch.data.sources.base import held_out
from mlx_autoresearch.data.sources.cut import cut
from mlx_autoresearch.errors import UserError
from tests.support.sources import NOWHERE, both, write


class TestConfig:
    def test_kind_chooses_the_source(self) -> None:
        adapter: TypeAdapter[Source] = TypeAdapter(SourceConfig)
        assert adapter.validate_python({"kind": "stdlib"}) == Stdlib()
        assert adapter.validate_python({"kind": "text", "paths": ["a"]}) == Text(paths=["a"])
        assert adapter.validate_python({"kind": "hub", "dataset": "tinystories"}).shuffled
        assert adapter.validate_python({"kind": "gutenberg", "books": [11]}) == Gutenberg(books=[11])

    @pytest.mark.parametrize(
        "source", [Stdlib(), Text(paths=["a"]), Hub(), Hub(dataset="a/b", val_split="test"), Gutenberg()]
    )
    def test_a_resolved_configuration_loads_again(self, source: Source) -> None:
        assert TypeAdapter(SourceConfig).validate_json(source.model_dump_json()) == source

    @pytest.mark.parametrize(
        "settings",
        [
            {"kind": "stdlib", "val_fraction": 0.0},
            {"kind": "stdlib", "val_fraction": 1.0},
            {"kind": "stdlib", "doc_bytes": 1},
            {"kind": "stdlib", "typo": 1},
            {"kind": "text", "paths": []},
            {"kind": "gutenberg", "books": []},
            {"kind": "gutenberg", "books": [0]},
            {"kind": "gutenberg", "base_url": "ftp://x"},
            {"kind": "hub", "dataset": "nonsense"},
            {"kind": "hub", "num_shards": 0},
            {"kind": "hub", "num_shards": 6543},
            {"kind": "hub", "dataset": "tinystories", "num_shards": 2},
            {"kind": "hub", "endpoint": "file:///etc"},
            {"kind": "hub", "val_fraction": 0.1},
            {"kind": "hub", "column": "body"},
            {"kind": "hub", "dataset": "a/b", "num_shards": 2},
            {"kind": "hub", "dataset": "a/b", "val_split": "train"},
            {"kind": "hub", "dataset": "a/b", "val_split": "test", "val_fraction": 0.1},
        ],
    )
    def test_settings_out_of_range_or_without_effect_are_refused(self, settings: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            TypeAdapter(SourceConfig).validate_python(settings)

    def test_every_setting_is_described(self) -> None:
        for source in (Stdlib, Text, Hub, Gutenberg):
            assert all(field.description for name, field in source.model_fields.items() if name != "kind")

    def test_importing_the_sources_does_not_import_the_heavy_libraries(self) -> None:
        code = "import sys, mlx_autoresearch.data.sources; print({'datasets', 'pyarrow'} & set(sys.modules))"
        assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


class TestCut:
    @pytest.mark.parametrize("seed", range(20))
    def test_nothing_is_lost_and_sizes_stay_within_half_and_twice(self, seed: int) -> None:
        draw = random.Random(seed)
        alphabet = draw.choice(["ab \n", "é🙂 \n", "🙂", "x", "x\n\n\n", "word word\n"])
        text = "".join(draw.choices(alphabet, k=draw.randrange(1, 20_000)))
        doc_bytes = draw.choice([64, 97, 1200])
        documents = list(cut(io.StringIO(text), doc_bytes))
        assert "".join(documents) == text
        sizes = [len(document.encode()) for document in documents]
        assert max(sizes) <= 2 * doc_bytes
        assert max(sizes[:-1], default=0) <= 1.5 * doc_bytes
        assert len(sizes) == 1 or min(sizes) >= doc_bytes // 2

    def test_definitions_stay_whole_with_their_decorators(self) -> None:
        functions = [f"@decorated\ndef f{i}():\n    x = {i}\n\n    return x{' ' * i}\n\n\n" for i in range(30)]
        for document in cut(io.StringIO("".join(functions)), 150):
            assert document.startswith("@decorated")
            assert document.endswith("\n\n\n")

    @pytest.mark.parametrize(
        ("better", "worse"),
        [
            ("\n\ndef f():\n", "\n\nx = 1\n"),
            ("\n\nx = 1\n", "\n\n    def f(self):\n"),
            ("\n\n    def f(self):\n", "\n\n    x = 1\n"),
            ("\n\n    x = 1\n", "\nx = 1\n"),
            ("\nx", " x"),
        ],
    )
    def test_the_better_boundary_wins_over_the_nearer_one(self, better: str, worse: str) -> None:
        filler = "a" * 60
        text = filler + better + filler[: 38 - len(better)] + worse + "b" * 200
        (first, *_) = cut(io.StringIO(text), 100)
        assert first + better.lstrip("\n") == filler + better

    def test_of_equal_boundaries_the_one_nearest_to_the_size_wins(self) -> None:
        lines = io.StringIO("".join("x" * 9 + "\n" for _ in range(100)))
        assert {len(document) for document in [*cut(lines, 100)][:-1]} == {100}

    def test_a_long_line_is_cut_at_spaces(self) -> None:
        documents = list(cut(["words " * 1000], 100))
        assert all(document.endswith("words ") and document.startswith("words") for document in documents)

    def test_a_good_boundary_neither_leaves_a_crumb_nor_makes_a_giant(self) -> None:
        crumb = "x\n" * 70 + "\nThe last paragraph.\n"
        assert [*cut(io.StringIO(crumb), 100)] == [crumb]
        late = "x\n" * 80 + "\nA paragraph.\n" + "x\n" * 80
        assert len(next(cut(io.StringIO(late), 100))) == 100


class TestHeldOut:
    def test_the_choice_is_the_same_for_ever(self) -> None:
        assert held_out([f"f{i}" for i in range(40)], 0.1) == {"f8", "f9", "f20", "f21", "f32"}

    def test_adding_a_file_moves_no_other(self) -> None:
        names = [f"file {i}" for i in range(300)]
        held = held_out(names[:50], 0.1)
        for count in range(51, 301):
            larger = held_out(names[:count], 0.1)
            assert larger & set(names[: count - 1]) == held
            held = larger
        assert 15 < len(held) < 45

    @pytest.mark.parametrize("fraction", [1e-9, 0.5, 1 - 1e-9])
    def test_each_side_has_at_least_one(self, fraction: float) -> None:
        for count in range(2, 20):
            held = held_out([f"f{i}" for i in range(count)], fraction)
            assert 0 < len(held) < count

    @pytest.mark.parametrize("fraction", [0.05, 0.95])
    def test_while_a_side_is_empty_of_its_own_one_name_at_most_moves(self, fraction: float) -> None:
        for seed in range(200):
            names = [f"{seed} {i}" for i in range(4)]
            assert len(held_out(names[:3], fraction) ^ (held_out(names, fraction) - {names[3]})) <= 1

    def test_one_name_cannot_be_split(self) -> None:
        with pytest.raises(UserError, match="need two"):
            held_out(["a", "a"], 0.5)


class TestStdlib:
    def test_the_corpus_is_sizable_and_only_the_standard_library(self) -> None:
        files = Stdlib().files(NOWHERE)
        names = [name for name, _ in files]
        assert {"json/decoder.py", "ast.py"} <= set(names)
        assert not any("-packages" in name or "__pycache__" in name for name in names)
        assert names == sorted(set(names), key=Path)
        assert sum(path.stat().st_size for _, path in files) > 8e6
        val = list(Stdlib().open(NOWHERE).documents("val"))
        assert val == list(Stdlib().open(NOWHERE).documents("val"))
        size = sum(len(document.encode()) for document in val)
        assert 1000 < size / len(val) < 1400
        assert 0.02 < size / sum(path.stat().st_size for _, path in files) < 0.15  # whole files: it varies with Python

    def test_whole_files_are_held_out_and_odd_ones_skipped(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = {f"m{i}.py": "".join(f"line {i} {j}\n" for j in range(300)) for i in range(30)}
        odd: dict[str, str | bytes] = {
            "latin.py": b"# -*- coding: latin-1 -*-\n\xe9\n",
            "empty.py": "",
            "_sysconfigdata__linux.py": "build = 1",
            "site-packages/other.py": "other",
            "dist-packages/other.py": "other",
            "test/__pycache__/m.py": "other",
            "README.txt": "other",
        }
        write(tmp_path, {**text, **odd})
        monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
        train, val = both(Stdlib(val_fraction=0.3))
        held = held_out([name for name, _ in Stdlib().files(NOWHERE)], 0.3)
        assert "".join(train) == "".join(text[name] for name in sorted(text) if name not in held)
        assert "".join(val) == "".join(text[name] for name in sorted(text) if name in held)

    def test_a_python_without_sources_is_one_clear_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
        with pytest.raises(UserError, match="use `kind: text`"):
            Stdlib().open(NOWHERE)


class TestFingerprint:
    def test_it_changes_exactly_when_the_documents_could(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.txt": "one", "b.txt": "two"})

        def mark(**settings: Any) -> str:
            return Text(paths=[str(tmp_path)], **settings).open(NOWHERE).fingerprint

        first = mark()
        assert mark() == first
        write(tmp_path, {"unrelated.csv": "x"})
        assert mark() == first
        seen = {first, mark(doc_bytes=100), mark(val_fraction=0.5), mark(column="body")}
        stat = (tmp_path / "a.txt").stat()
        os.utime(tmp_path / "a.txt", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
        seen.add(mark())
        write(tmp_path, {"a.txt": "longer"})
        os.utime(tmp_path / "a.txt", ns=(stat.st_atime_ns, stat.st_mtime_ns))
        seen.add(mark())
        write(tmp_path, {"c.txt": "new"})
        seen.add(mark())
        (tmp_path / "c.txt").rename(tmp_path / "d.txt")
        seen.add(mark())
        assert len(seen) == 8

    def test_where_a_download_comes_from_does_not_matter(self) -> None:
        def mark(source: Source) -> str:
            return source.open(NOWHERE).fingerprint

        assert mark(Hub(endpoint="http://a")) == mark(Hub(num_shards=10))
        assert mark(Gutenberg(base_url="http://a", books=[1, 2])) == mark(Gutenberg(books=[2, 1]))
        marks = {mark(Hub(dataset=d, num_shards=n)) for d in ("climbmix", "fineweb-edu") for n in (1, 2)}
        assert len(marks) == 4

    def test_it_is_that_of_the_versions_before(self) -> None:
        """Prepared data is found by it: another value would prepare everything anew. Books are read otherwise now."""
        hub = "5b1e2c295b81244ad01dc5825e34694bc2ed66d25869e73bb6fddf612c9ee9f9"
        book = "a39f010e91fac68b1d2d21daa9aff7e4443487e0b821fecddd69dcbe1c40ab96"
        assert Hub().open(NOWHERE).fingerprint == hub
        assert Gutenberg(books=[11]).open(NOWHERE).fingerprint == book

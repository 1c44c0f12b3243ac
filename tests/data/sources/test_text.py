"""Plain files, JSON lines and Parquet of one's own, and what is said of those that cannot be read."""

from __future__ import annotations

import io
import itertools
import json
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlx_autoresearch.data.sources import Text
from mlx_autoresearch.data.sources.base import held_out
from mlx_autoresearch.errors import UserError
from tests.support.sources import NOWHERE, both, everything, parquet, write


def with_columns(*names: str) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table([["x"] for _ in names], names=names), sink)
    return sink.getvalue()


class TestText:
    def test_every_format_is_read(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            {
                "a.txt": "\ufeffplain\r\ntext",
                "b/c.MD": "# head\n",
                "b/d.py": "x = 1\n",
                "e.JSONL": '{"text": "one"}\n\n{"text": "zwei é \\ud83d\\ude42", "id": 2}\n{"text": null}\n{"text":""}',
                "f.parquet": parquet(text=["three", None, "", "four"], id=[1, 2, 3, 4]),
                ".hidden/g.txt": "no",
                ".g.txt": "no",
                "h.csv": "no",
            },
        )
        expected = {"plain\ntext", "# head\n", "x = 1\n", "one", "zwei é 🙂", "three", "four"}
        for paths in (["."], ["*"], ["**/*"], ["a.txt", "b", "[ef].*"], [str(tmp_path)]):
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(tmp_path)
                documents = everything(Text(paths=paths))
                assert sorted(documents) == sorted(expected), paths

    @pytest.mark.parametrize(
        "names, held",
        [
            (["train.md", "val.md"], ["val.md"]),
            (["Train.txt", "Valid.txt", "notes.txt"], ["Valid.txt"]),
            (["training/a.txt", "training/b.txt", "validation/a.txt"], ["validation/a.txt"]),
            (
                ["train-00000-of-00002.txt", "train-00001-of-00002.txt", "test-00000-of-00001.txt"],
                ["test-00000-of-00001.txt"],
            ),
            (["train_1.txt", "dev.txt", "test.txt"], ["dev.txt", "test.txt"]),
            (["val/train.txt", "train/val.txt"], ["train/val.txt"]),
        ],
    )
    def test_names_that_say_so_decide(self, tmp_path: Path, names: list[str], held: list[str]) -> None:
        write(tmp_path, {name: f"{name}\n" for name in names})
        train, val = both(Text(paths=[str(tmp_path)]))
        assert sorted(val) == sorted(f"{name}\n" for name in held)
        assert sorted(train) == sorted({f"{name}\n" for name in names} - {*val})

    @pytest.mark.parametrize(
        "names",
        [
            ["tests/test_a.py", "src/train.py", "src/b.py"],  # a part of the name, not the whole of it
            ["val.txt", "valley.txt", "devices.txt"],  # nothing says train
            ["train.txt", "training.txt", "other.txt"],
        ],
    )
    def test_other_names_decide_nothing(self, tmp_path: Path, names: list[str]) -> None:
        write(tmp_path, {name: f"{name}\n" for name in names})
        _, val = both(Text(paths=[str(tmp_path)]))
        assert val == [f"{name}\n" for name in held_out(names, 0.05)]

    def test_val_paths_are_for_validation(self, tmp_path: Path) -> None:
        write(tmp_path, {name: f"{name}\n" for name in ("input.txt", "readme.md", "extra/a.txt", "extra/b.txt")})
        paths = {"paths": [str(tmp_path)], "val_paths": [str(tmp_path / "extra"), str(tmp_path / "readme.md")]}
        source = Text(**paths)
        train, val = both(source)
        assert (train, sorted(val)) == (["input.txt\n"], ["extra/a.txt\n", "extra/b.txt\n", "readme.md\n"])
        assert source.open(NOWHERE).fingerprint != Text(paths=paths["paths"]).open(NOWHERE).fingerprint
        elsewhere = Text(paths=[str(tmp_path / "input.txt")], val_paths=[str(tmp_path / "extra/a.txt")])
        assert both(elsewhere) == (["input.txt\n"], ["extra/a.txt\n"])

    def test_a_wrong_val_path_is_said(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.txt": "a", "b.txt": "b"})
        with pytest.raises(UserError, match=r"c\.txt: no such file"):
            both(Text(paths=[str(tmp_path)], val_paths=[str(tmp_path / "c.txt")]))
        with pytest.raises(UserError, match="no text in the train split"):
            both(Text(paths=[str(tmp_path)], val_paths=[str(tmp_path)]))

    @pytest.mark.parametrize("fraction", [0.05, 0.5, 0.95])
    def test_files_without_text_do_not_decide(self, tmp_path: Path, fraction: float) -> None:
        """Whichever of them is empty, each side gets text as long as two files hold some."""
        names = [f"part{i}.txt" for i in range(4)]
        for holding in itertools.combinations(names, 2):
            write(tmp_path, {name: f"{name}\n" if name in holding else " \n\n" for name in names})
            train, val = both(Text(paths=[str(tmp_path)], val_fraction=fraction))
            assert len(train) == len(val) == 1 and {*train, *val} == {f"{name}\n" for name in holding}

    def test_text_is_cut_and_records_are_not(self, tmp_path: Path) -> None:
        long = "some words\n" * 1000
        write(tmp_path, {"a.txt": long, "b.jsonl": json.dumps({"text": long}), "c.parquet": parquet(text=[long])})
        documents = everything(Text(paths=[str(tmp_path)]))
        assert documents.count(long) == 2
        assert "".join(sorted(documents, key=len)[:-2]) == long
        assert max(len(document) for document in documents if document != long) < 2400
        assert everything(Text(paths=[str(tmp_path)], doc_bytes=None)) == [long] * 3

    def test_files_are_held_out_whole(self, tmp_path: Path) -> None:
        write(tmp_path, {f"{i}.txt": f"{i}\n" * 1000 for i in range(30)})
        train, val = both(Text(paths=[str(tmp_path)], val_fraction=0.2))
        assert not {document[:2] for document in train} & {document[:2] for document in val}

    @pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet"])
    def test_of_a_single_file_the_tail_is_held_out(self, tmp_path: Path, name: str) -> None:
        texts = [f"document {i}" + " x" * 40 + "\n" for i in range(100)]
        content = {
            "a.txt": "\n".join(texts),
            "a.jsonl": "\n".join(json.dumps({"text": text}) for text in texts),
            "a.parquet": parquet(text=texts),
        }[name]
        write(tmp_path, {name: content})
        train, val = both(Text(paths=[str(tmp_path / name)], doc_bytes=64, val_fraction=0.1))
        assert "".join(train + val).replace("\n", "") == "".join(texts).replace("\n", "")
        assert len(val) == round(0.1 * len(train + val))

    @pytest.mark.parametrize("fraction", [0.01, 0.99])
    def test_two_documents_are_enough(self, tmp_path: Path, fraction: float) -> None:
        write(tmp_path, {"a.jsonl": '{"text": "one"}\n{"text": "two"}'})
        assert both(Text(paths=[str(tmp_path)], val_fraction=fraction)) == (["one"], ["two"])

    def test_a_file_named_twice_is_read_once(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.txt": "one", "b.txt": "two"})
        (tmp_path / "c.txt").symlink_to(tmp_path / "a.txt")
        paths = [str(tmp_path / "*.txt"), str(tmp_path), str(tmp_path / "a.txt")]
        assert sorted(everything(Text(paths=paths))) == ["one", "two"]

    def test_a_tilde_is_the_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        write(tmp_path, {"a.txt": "one", "b.txt": "two"})
        assert sorted(everything(Text(paths=["~/a.txt", "~/*.txt"]))) == ["one", "two"]

    def test_files_of_the_same_name_are_kept_apart(self, tmp_path: Path) -> None:
        write(tmp_path, {"a/x.txt": "one", "b/x.txt": "two"})
        assert sorted(everything(Text(paths=[str(tmp_path / "a"), str(tmp_path / "b/x.txt")]))) == ["one", "two"]

    def test_moving_a_corpus_moves_nothing_between_the_splits(self, tmp_path: Path) -> None:
        write(tmp_path / "old", {f"{i}.txt": f"text {i}" for i in range(20)})
        before, mark = (
            both(Text(paths=[str(tmp_path / "old")])),
            Text(paths=[str(tmp_path / "old")]).open(NOWHERE).fingerprint,
        )
        shutil.move(tmp_path / "old", tmp_path / "new")
        for pattern in ("new", "new/*.txt"):
            moved = Text(paths=[str(tmp_path / pattern)])
            assert (both(moved), moved.open(NOWHERE).fingerprint) == (before, mark)

    @pytest.mark.parametrize(
        ("files", "path", "message"),
        [
            ({}, "missing.txt", r"missing\.txt: no such file or folder"),
            ({}, "*.txt", r"\*\.txt: matches no file"),
            ({"a.csv": "x"}, "*.csv", r"matches no file.*\.jsonl"),
            ({"a.csv": "x"}, "a.csv", r"a\.csv: cannot read \.csv; supported are \.txt"),
            ({"a.csv": "x"}, ".", r"matches no file"),
            ({"a.jsonl": '{"text": "x"}\n{"text": '}, "a.jsonl", r"a\.jsonl:2: not valid JSON"),
            ({"a.jsonl": '{"text": "x"}\n{"body": "y"}'}, "a.jsonl", r"a\.jsonl:2: no field `text` \(it has: body\)"),
            ({"a.jsonl": '["text"]'}, "a.jsonl", r"a\.jsonl:1: no field `text`.*no object"),
            ({"a.jsonl": '{"text": 3}'}, "a.jsonl", r"a\.jsonl:1: field `text` is int, not text"),
            ({"a.jsonl": '{"text": "\\ud800"}'}, "a.jsonl", r"a\.jsonl:1: .*surrogate"),
            ({"a.txt": b"one\ntwo \xff\n"}, "a.txt", r"a\.txt:2: not UTF-8"),
            ({"a.jsonl": b'{"text": "\xe9"}'}, "a.jsonl", r"a\.jsonl:1: not UTF-8"),
            ({"a.parquet": parquet(body=["x"], id=[1])}, "a.parquet", r"no column `text` \(it has: body, id\)"),
            ({"a.parquet": parquet(text=[1])}, "a.parquet", r"column `text` holds int64, not text"),
            ({"a.parquet": parquet(text=["x"])[:-1]}, "a.parquet", r"a\.parquet is not a whole parquet file"),
            ({"a.jsonl": f'{{"id": {"[" * 99_999}, "text": "x"}}'}, "a.jsonl", r"a\.jsonl:1: .* nested too deep"),
            ({"a.txt": "text".encode("utf-16-le")}, "a.txt", r"a\.txt:1: holds NUL characters"),
            ({"a.md": "one\ntext".encode("utf-32-be")}, "a.md", r"a\.md:1: holds NUL characters"),
            ({"a.txt": b"one\ntwo\0\0\0\0"}, "a.txt", r"a\.txt:2: holds NUL characters"),
            ({"a.jsonl": '{"text": "x"}'.encode("utf-16-be")}, "a.jsonl", r"a\.jsonl:1: holds NUL characters"),
            ({"a.txt": "text".encode("utf-16")}, "a.txt", r"a\.txt:1: not UTF-8"),
            ({"a.parquet": with_columns("text", "id", "text")}, "a.parquet", r"2 columns are called `text`; rename"),
            ({"a.parquet": parquet(text=[b"x", b"\xe9"])}, "a.parquet", r"column `text` holds text that is not UTF-8"),
            ({"a.txt": ""}, "a.txt", r"a\.txt holds 0 document"),
            ({"a.txt": "x"}, "a.txt", r"a\.txt holds 1 document.*doc_bytes"),
            ({"a.txt": " \n", "b.txt": "\n"}, ".", r"no text in the (train|val) split"),
        ],
    )
    def test_bad_input_is_one_clear_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str | bytes], path: str, message: str
    ) -> None:
        write(tmp_path, files)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError, match=message) as caught:
            both(Text(paths=[path]))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary()])
    @pytest.mark.parametrize("encoded", [False, True])
    def test_text_is_text_however_it_is_stored(self, tmp_path: Path, kind: pa.DataType, encoded: bool) -> None:
        if kind == pa.string_view() and (encoded or int(pa.__version__.split(".")[0]) < 21):
            return  # Arrow has no dictionary of these, and before 21 reads them from Parquet but does not write them
        texts = pa.array(["one é", None, "two", "two"], kind)
        write(tmp_path, {"a.parquet": parquet(text=texts.dictionary_encode() if encoded else texts)})
        assert sorted(everything(Text(paths=[str(tmp_path)]))) == ["one é", "two", "two"]

    def test_a_damaged_page_is_one_clear_line(self, tmp_path: Path) -> None:
        sink = io.BytesIO()
        pq.write_table(
            pa.table({"text": [random.Random(i).randbytes(20).hex() for i in range(5000)]}), sink, compression="zstd"
        )
        body = bytearray(sink.getvalue())
        body[1000:3000] = bytes(2000)
        write(tmp_path, {"a.parquet": bytes(body)})
        with pytest.raises(UserError, match=r"a\.parquet is damaged"):
            both(Text(paths=[str(tmp_path)]))

    def test_other_columns_can_be_chosen(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.jsonl": '{"body": "one"}', "b.parquet": parquet(body=pa.array(["two"], pa.large_string()))})
        assert sorted(everything(Text(paths=[str(tmp_path)], column="body"))) == ["one", "two"]

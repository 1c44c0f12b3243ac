"""What is made of a source's text, what of it is said, and which text is refused."""

from __future__ import annotations

from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from mlx_autoresearch.data import parts, progress
from mlx_autoresearch.data import prepare as prepare_module
from mlx_autoresearch.data.packing import PackedBatches
from mlx_autoresearch.data.prepare import prepare
from mlx_autoresearch.data.prepared import PreparedData, open_prepared
from mlx_autoresearch.data.sources import Text
from mlx_autoresearch.errors import UserError
from tests.support.preparing import VOCAB, Counted, Fake, make, nothing_is_left

pytestmark = pytest.mark.usefixtures("no_reads_yet")


def texts(prepared: PreparedData, part: parts.Part) -> list[str]:
    if part not in prepared.manifest.splits:
        return []
    shards = prepared.split(part)
    return decoded(prepared, shards.tokens, shards.offsets)


def decoded(prepared: PreparedData, tokens: np.ndarray, offsets: np.ndarray) -> list[str]:
    documents = [tokens[start:end] for start, end in pairwise(offsets)]
    assert all(document[0] == prepared.tokenizer.bos_id for document in documents)
    return [prepared.tokenizer.decode(document) for document in documents]


def held_out(prepared: PreparedData) -> list[str]:
    """The documents of all parts but the training text."""
    return [text for part in parts.HELD_OUT for text in texts(prepared, part)]


def test_every_document_is_there_and_decodes_to_itself(tmp_path: Path) -> None:
    source = Fake()
    prepared = make(source, tmp_path)
    assert sorted(texts(prepared, "train")) == sorted(source.train)
    assert sorted(held_out(prepared)) == sorted(source.val)
    assert sorted(decoded(prepared, *prepared.held_out())) == sorted(source.val)
    prepared.verify()


def test_manifest_tells_what_was_made_of_what(tmp_path: Path) -> None:
    source = Fake()
    manifest = make(source, tmp_path).manifest
    assert manifest.source == source.model_dump(mode="json")
    assert manifest.vocab_size == VOCAB
    assert [manifest.splits[part].documents for part in parts.HELD_OUT] == [6, 3, 3]
    assert manifest.splits["train"].bytes == sum(len(text.encode()) for text in source.train)
    assert manifest.val_sha256 == manifest.splits["val"].files["val.bin"].sha256
    assert {"python", "numpy", "tokenizers"} <= set(manifest.versions)


def test_the_tokenizer_never_sees_validation_text(tmp_path: Path) -> None:
    source = Fake(train=tuple("abcabc" * 9 + str(i) for i in range(30)), val=("zzzzzzzz" * 100,))
    tokenizer = prepare(source, vocab_size=262, cache_dir=tmp_path, quiet=True).tokenizer
    assert set(tokenizer.token_strings[256:258]) <= {b"ab", b"bc", b"abc", b"abcabc"}


def test_again_reads_and_fetches_nothing(tmp_path: Path) -> None:
    first = make(Fake(), tmp_path)
    Fake.reads.clear()
    assert make(Fake(), tmp_path).path == first.path
    assert open_prepared(Fake(), vocab_size=VOCAB, cache_dir=tmp_path).manifest == first.manifest
    assert Fake.reads == []


def test_text_settings_and_vocabulary_decide_the_folder(tmp_path: Path) -> None:
    sources = [Fake(), Fake(train=(*Fake().train, "one more")), Fake(val_fraction=0.1)]
    folders = {make(source, tmp_path).path for source in sources}
    folders.add(prepare(Fake(), vocab_size=VOCAB + 1, cache_dir=tmp_path, quiet=True).path)
    assert len(folders) == 4


def test_the_same_text_gives_the_same_bytes_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = make(Fake(), tmp_path / "one")
    monkeypatch.setattr(prepare_module, "BATCH_CHARS", 50)  # many batches, out of step with the others
    other = make(Fake(), tmp_path / "other")
    assert one.manifest == other.manifest
    assert one.path.name == other.path.name


def test_documents_in_both_splits_leave_validation(tmp_path: Path) -> None:
    source = Fake(val=(Fake().train[3], "only here", Fake().train[7], "only here", "and here"))
    prepared = make(source, tmp_path)
    assert sorted(held_out(prepared)) == ["and here", "only here"]
    assert len(texts(prepared, "train")) == len(source.train)
    assert (prepared.manifest.duplicates_dropped, prepared.manifest.resembling_dropped) == (2, 1)
    assert sorted(decoded(prepared, *prepared.held_out())) == sorted(source.val)  # the reference validates on all


def test_what_is_left_out_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(Fake(val=(Fake().train[3], "here", "here", "and here")), vocab_size=VOCAB, cache_dir=tmp_path)
    said = capsys.readouterr().err
    assert "held out: 1 more documents left out, because they are in train too, and 1 that resemble one" in said


def test_a_part_that_the_text_is_too_little_for_is_said_when_it_is_asked_for(tmp_path: Path) -> None:
    prepared = make(Fake(val=("only this",)), tmp_path)
    assert texts(prepared, "val") == ["only this"]
    for part in ("confirmation", "holdout"):
        with pytest.raises(UserError, match=f"too little for a part called {part}: give the source more text"):
            prepared.split(part)


def test_sources_in_order_are_shuffled_and_shuffled_ones_are_not(tmp_path: Path) -> None:
    source = Fake()
    prepared = make(source, tmp_path)
    assert texts(prepared, "train") != list(source.train)
    assert decoded(prepared, *prepared.held_out()) != list(source.val)
    source = Fake(in_random_order=True)
    prepared = make(source, tmp_path)
    assert texts(prepared, "train") == list(source.train)
    assert decoded(prepared, *prepared.held_out()) == list(source.val)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Fake(train=()), "no text in the train split"),
        (Fake(val=()), "no text in the val split"),
        (Fake(val=Fake().train[:2]), "2 validation documents is in the training text too"),
    ],
)
def test_empty_splits_are_refused(tmp_path: Path, source: Fake, message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepare(source, vocab_size=257, cache_dir=tmp_path, quiet=True)
    assert nothing_is_left(tmp_path)


def test_too_little_text_for_the_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="set vocab_size to"):
        prepare(Fake(), vocab_size=60_000, cache_dir=tmp_path, quiet=True)
    assert nothing_is_left(tmp_path)


def test_a_bad_vocabulary_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    class Unfetched(Fake, frozen=True):
        def fetch(self, downloads: Path, progress: object = None) -> None:
            raise AssertionError("fetched")

    with pytest.raises(UserError, match="vocab_size"):
        prepare(Unfetched(), vocab_size=70_000, cache_dir=tmp_path, quiet=True)


def test_not_prepared_says_what_to_run(tmp_path: Path) -> None:
    make(Fake(), tmp_path)
    for source, vocab_size in ((Fake(), VOCAB + 1), (Fake(val_fraction=0.5), VOCAB)):
        with pytest.raises(UserError, match="run `mlx-autoresearch prepare`"):
            open_prepared(source, vocab_size=vocab_size, cache_dir=tmp_path)


def test_the_files_are_listed_once_a_look_and_read_no_more_often_than_needed(tmp_path: Path, text_folder: Path) -> None:
    source = Counted(paths=[str(text_folder)], val_fraction=0.2)
    held = {part.path.name for part in source.open(tmp_path).parts["val"]}
    Counted.calls.clear()
    make(source, tmp_path)
    # Is it there already? What is there to prepare? Has it changed meanwhile?
    assert Counted.calls.pop("files") == 3
    # Training text is read for the tokenizer and to be tokenized, validation text to be tokenized.
    # Of one file on each side the beginning is read as well: does the side hold text?
    more = {path.name: Counted.calls[path.name] - (1 if path.name in held else 2) for path in text_folder.iterdir()}
    assert sorted(more.values()) == [0] * (len(more) - 2) + [1, 1]
    assert sum(more[name] for name in held) == 1
    Counted.calls.clear()
    make(source, tmp_path)
    open_prepared(source, vocab_size=VOCAB, cache_dir=tmp_path)
    assert Counted.calls == {"files": 2}


def test_lines_tell_what_happens_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    long = tuple("word " * 250_000 + str(i) for i in range(2))
    prepared = prepare(Fake(train=long, in_random_order=True), vocab_size=260, cache_dir=tmp_path)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "tokenizing train: 1 MB\n" in captured.err  # on the way
    assert "tokenizing train: 2.5 MB in" in captured.err  # at the end
    assert f"prepared: {prepared.path}\n" in captured.err
    assert "\x1b" not in captured.err
    prepare(Fake(), vocab_size=260, cache_dir=tmp_path, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_from_text_files_to_batches(tmp_path: Path, text_folder: Path) -> None:
    prepared = make(Text(paths=[str(text_folder)], val_fraction=0.2), tmp_path / "cache")
    assert set(texts(prepared, "train")).isdisjoint(held_out(prepared))
    shards = prepared.split("train")
    for batch in islice(PackedBatches(shards.tokens, shards.offsets, batch_size=2, sequence_len=16), 30):
        assert (batch.inputs[:, 0] == prepared.tokenizer.bos_id).all()
        assert 0 <= batch.targets.min() <= batch.targets.max() < VOCAB


@pytest.mark.parametrize("names", [("a.txt", "small.txt"), ("train.txt", "val.txt")])
def test_a_share_far_from_what_was_asked_for_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, str]
) -> None:
    """It used to train on the small file and to validate on the large one without a word."""
    folder = tmp_path / "text"
    folder.mkdir()
    for name, lines in zip(names, (3000, 2000), strict=True):
        (folder / name).write_text("".join(f"{name} {number}\n" for number in range(lines)))
    prepare(Text(paths=[str(folder)]), vocab_size=VOCAB, cache_dir=tmp_path / "cache")
    assert "of the text is held out for validation, not 5.0% (val_fraction)" in capsys.readouterr().err
    said = Text(paths=[str(folder)], val_paths=[str(folder / names[1])])
    prepare(said, vocab_size=VOCAB, cache_dir=tmp_path / "cache")
    assert "held out for validation, not" not in capsys.readouterr().err

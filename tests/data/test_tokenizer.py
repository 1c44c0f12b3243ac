from __future__ import annotations

import builtins
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from mlx_autoresearch.data import tokenizer as tokenizer_module
from mlx_autoresearch.data.tokenizer import BOS_TOKEN, SPECIAL_TOKENS, Tokenizer
from mlx_autoresearch.errors import UserError

# Text that every machine has: Python's own documentation strings.
CORPUS = [str(builtin.__doc__) for builtin in vars(builtins).values()]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(CORPUS, 600)


def test_ids_are_bytes_and_merges_then_specials(tokenizer: Tokenizer, tmp_path: Path) -> None:
    assert tokenizer.vocab_size == 600
    assert tokenizer.bos_id == 596
    tokenizer.save(tmp_path / "tokenizer.json")
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert [backend.token_to_id(token) for token in SPECIAL_TOKENS] == [596, 597, 598, 599]
    assert set(tokenizer.token_strings[:256]) == {bytes([byte]) for byte in range(256)}


@pytest.mark.parametrize("vocab_size", [257, 258, 259, 260, 261])
def test_smallest_vocabularies_keep_every_byte_and_bos(vocab_size: int) -> None:
    small = Tokenizer.train(["aaaa bbbb"], vocab_size)
    assert small.vocab_size == vocab_size
    assert small.bos_id == max(256, vocab_size - 4)
    assert (small.token_bytes == 0).sum() == min(4, vocab_size - 256)
    text = "aaaa é 你 🎉"
    assert small.decode(small.encode(text)) == text
    assert small.encode_documents([text])[0][0] == small.bos_id


@pytest.mark.parametrize("space", [" ", "\t", "\u3000"])
@pytest.mark.parametrize("after", ["", "x"])
def test_long_runs_of_white_space_are_encoded(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, space: str, after: str
) -> None:
    """The pattern's engine gives up on ten million, and takes the process with it."""
    length = 10_000_100 if (space, after) == (" ", "x") else 1_000
    if length == 1_000:  # the others in small
        monkeypatch.setattr(tokenizer_module, "_LONGEST_RUN", 100)
        monkeypatch.setattr(tokenizer_module, "_RUN", re.compile(r"\s{101,}"))
    text = f"a{space * length}{after}"
    documents = tokenizer.encode_documents(["first", text, "last"])
    assert [len(d) > 1 and d[0] == tokenizer.bos_id for d in documents] == [True] * 3
    assert tokenizer.decode(documents[1]) == text and tokenizer.decode(documents[2]) == "last"
    assert tokenizer.token_bytes[documents[1]].sum() == len(text.encode())


@pytest.mark.parametrize("vocab_size", [-1, 256, 65_537])
def test_vocabularies_out_of_range_are_refused(vocab_size: int) -> None:
    with pytest.raises(UserError, match=r"between 257 .* 65,536"):
        Tokenizer.train(["text"], vocab_size)


def test_a_vocabulary_larger_than_the_text_allows_says_what_to_set() -> None:
    # "ab" and "abc" are the only merges that this text has.
    with pytest.raises(UserError, match="only 262 tokens: set vocab_size to 262"):
        Tokenizer.train(["abc"], 1000)
    assert Tokenizer.train(["abc"], 262).vocab_size == 262


def test_split_pattern_is_the_references(tokenizer: Tokenizer) -> None:
    backend = tokenizers.Tokenizer.from_str(tokenizer._backend.to_str())
    pieces = [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str("I'LL add 12345, ok?!\n\n  two  tabs\tx \n")]
    space, newline, tab = "Ġ", "Ċ", "ĉ"
    assert pieces == [
        *["I", "'LL", f"{space}add", space, "12", "34", "5", ",", f"{space}ok", f"?!{newline}{newline}"],
        *[space, f"{space}two", space, f"{space}tabs", f"{tab}x", f"{space}{newline}"],
    ]


def random_texts() -> list[str]:
    rng = random.Random(0)
    ranges = [(0, 0x80), (0x80, 0x800), (0x800, 0xD800), (0xE000, 0x110000)]
    return ["".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(60))) for _ in range(200)]


def test_any_unicode_text_survives(tokenizer: Tokenizer) -> None:
    texts = [
        *random_texts(),
        "",
        " ",
        "\r\n\r\n \t\x00\x7f\x85\u2028\ufeff\ufffd",
        "e\u0301 vs é, ﬁ, K (Kelvin)",
        "👩‍👩‍👧‍👦 हिन्दी עברית 日本語\n" * 3,
        "a" * 5000,
    ]
    for text, document in zip(texts, tokenizer.encode_documents(texts), strict=True):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert document.tolist() == [tokenizer.bos_id, *ids]
        assert tokenizer.token_bytes[ids].sum() == len(text.encode())


def test_text_that_spells_a_special_token_stays_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    text = f"a {BOS_TOKEN}b{SPECIAL_TOKENS[3]}"
    for each in (tokenizer, Tokenizer.load(tmp_path / "tokenizer.json")):
        ids = each.encode(text)
        assert max(ids) < each.bos_id
        assert each.encode_documents([text])[0][1:].tolist() == ids
        assert each.decode(ids) == text


def test_token_bytes_are_the_true_ones_and_the_references(tokenizer: Tokenizer) -> None:
    strings = tokenizer.token_strings
    assert tokenizer.token_bytes.dtype == tokenizer.reference_token_bytes.dtype == np.int32
    assert tokenizer.token_bytes.tolist() == [len(string) for string in strings]
    assert tokenizer.token_bytes[-4:].tolist() == [0] * 4
    assert (tokenizer.token_bytes[:-4] > 0).all()
    decoded = [len(tokenizer.decode([token]).encode()) for token in range(tokenizer.vocab_size)]
    assert tokenizer.reference_token_bytes.tolist() == decoded
    # A lone byte of a longer character is one byte, and three as the reference counts it.
    lone = strings.index(b"\xe4")
    assert (tokenizer.token_bytes[lone], tokenizer.reference_token_bytes[lone]) == (1, 3)


def test_partial_characters_in_a_longer_token_count_as_the_reference_counts_them() -> None:
    # 你 and 好 are e4 bd a0 and e5 a5 bd: merges pass through two of three bytes, one replacement character.
    chinese = Tokenizer.train(["你你你 你你"], 262)
    partial = [
        token for token, string in enumerate(chinese.token_strings) if 1 < len(string) < 3 and b" " not in string
    ]
    assert partial
    assert (chinese.token_bytes[partial] == 2).all()
    assert chinese.reference_token_bytes[partial].tolist() == [len(chinese.decode([t]).encode()) for t in partial]


def test_training_is_deterministic_and_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Tokenizer.train(CORPUS, 600)._backend.to_str() == Tokenizer.train(CORPUS, 600)._backend.to_str()
    monkeypatch.setattr(tokenizer_module, "MAX_DOCUMENT_CHARS", 4)
    monkeypatch.setattr(tokenizer_module, "MAX_TRAINING_CHARS", 8)
    read: list[str] = []

    def documents() -> Iterator[str]:
        for document in ("ababXYXYXY", "ababXYXYXY", "XYXYXYXY", "never read"):
            read.append(document)
            yield document

    small = Tokenizer.train(documents(), 262)
    assert set(small.token_strings[256:258]) == {b"ab", b"abab"}
    assert "never read" not in read


def test_save_and_load_agree(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    loaded = Tokenizer.load(path)
    plain = tokenizers.Tokenizer.from_file(str(path))  # as anybody else reads it
    for text in CORPUS[:20]:
        assert loaded.encode(text) == tokenizer.encode(text) == plain.encode(text).ids
    assert (loaded.vocab_size, loaded.bos_id) == (tokenizer.vocab_size, tokenizer.bos_id)
    assert np.array_equal(loaded.token_bytes, tokenizer.token_bytes)


def test_a_missing_or_damaged_file_is_one_clear_line(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(UserError, match="mlx-autoresearch prepare"):
        Tokenizer.load(path)
    tokenizer.save(path)
    whole = path.read_bytes()
    for damaged in (whole[:-50], b"{}", b"\xff\xfe", tokenizers.Tokenizer(tokenizers.models.BPE()).to_str().encode()):
        path.write_bytes(damaged)
        with pytest.raises(UserError) as caught:
            Tokenizer.load(path)
        assert "\n" not in str(caught.value)
        assert "prepare" in str(caught.value)


@pytest.mark.parametrize(("vocab_size", "tokens"), [(280, 14_670), (300, 9_204), (320, 8_604), (340, 8_544)])
def test_compresses_as_rustbpe_does(vocab_size: int, tokens: int) -> None:
    """Figures of rustbpe 0.1.0 with tiktoken and the reference's pattern, on the same text."""
    text = "".join(f"def f{i}(x, y): return x + {i} * y  # it's number {i}: Größe, 大小\n" for i in range(300))
    assert len(Tokenizer.train([text], vocab_size).encode(text)) == tokens

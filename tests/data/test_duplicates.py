from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from mlx_autoresearch.data import duplicates
from mlx_autoresearch.data.duplicates import Windows, resembling
from mlx_autoresearch.data.shards import ShardWriter, TokenShards
from mlx_autoresearch.data.tokenizer import Tokenizer

WORDS = ["".join(random.Random(i).choices("abcdefghijklmnop", k=2 + i % 7)) for i in range(400)]


def essay(seed: int, words: int = 120) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def changed(text: str, *places: int) -> str:
    words = text.split()
    for place in places:
        words[place] = "another"
    return " ".join(words)


TRAIN = [essay(seed) for seed in range(60)]


@pytest.fixture(scope="module", params=[257, 600])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer.train(TRAIN, request.param)


@pytest.fixture
def dropped(tokenizer: Tokenizer, tmp_path: Path):
    """Which held-out texts resemble others."""

    def write(name: str, texts: list[str]) -> TokenShards:
        with ShardWriter(tmp_path, name, tokenizer.token_bytes) as writer:
            writer.append(tokenizer.encode_documents(texts))
            return writer.close()

    def run(held_out: list[str], train: list[str] = TRAIN) -> list[bool]:
        shards = write("train", train)
        windows = Windows(tokenizer, shards.info.bytes_per_token)
        return resembling(write("held_out", held_out), shards, windows).tolist()

    return run


NEAR = {
    "itself": TRAIN[3],
    "one word changed": changed(TRAIN[3], 60),
    "three words changed": changed(TRAIN[3], 20, 60, 100),
    "white space": TRAIN[3].replace(" ", "   ") + "\n",
    "a beginning of it": " ".join(TRAIN[3].split()[:60]),
    "with something before and after": f"{essay(900, 20)} {TRAIN[3]} {essay(901, 20)}",
    "two documents joined": f"{TRAIN[3]} {TRAIN[4]}",
}
FAR = {
    "another text": essay(1000),
    "a quotation": f"{essay(1001, 100)} {' '.join(TRAIN[3].split()[:30])}",
    "the same words in another order": " ".join(sorted(TRAIN[3].split())),
    "a short one": essay(1002, 3),
    "nothing but white space": " \n ",
}


@pytest.mark.parametrize("name", NEAR)
def test_what_resembles_training_text_is_dropped(dropped, name: str) -> None:
    assert dropped([essay(2000), NEAR[name], essay(2001)]) == [False, True, False]


@pytest.mark.parametrize("name", FAR)
def test_what_shares_little_with_it_stays(dropped, name: str) -> None:
    assert dropped([FAR[name]]) == [False]


def test_of_held_out_texts_that_resemble_each_other_the_first_stays(dropped) -> None:
    one, two = essay(3000), essay(3001)
    assert dropped([one, two, changed(one, 50), essay(3002), changed(two, 5), one]) == [
        False, False, True, False, True, True
    ]  # fmt: skip


def test_what_resembles_only_one_that_is_dropped_stays(dropped) -> None:
    """The first is in the training text; the second shares with it what the training text has not."""
    own = essay(4001, 60)
    first = f"{TRAIN[3]} {own}"
    assert dropped([first, f"{own} {essay(4002, 20)}"]) == [True, False]


def test_a_text_shorter_than_a_window_resembles_only_the_same_words(dropped) -> None:
    assert dropped(["so it ends", "So  it ends\n", "so it began"], [*TRAIN, "so it began"]) == [False, True, True]


def test_groups_and_one_document_longer_than_a_group_change_nothing(dropped, monkeypatch: pytest.MonkeyPatch) -> None:
    held_out = [essay(5000), changed(TRAIN[7], 60), essay(5001), changed(TRAIN[50], 9)]
    for tokens in (1 << 22, 3000, 150):
        monkeypatch.setattr(duplicates, "_GROUP", tokens)
        assert dropped(held_out, [*TRAIN, " ".join(essay(seed, 2000) for seed in range(2))]) == [False, True] * 2


def test_windows_are_hashed_by_what_is_in_them(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Equal windows have equal hashes wherever they stand; no two of a text of many windows agree by chance."""
    with ShardWriter(tmp_path, "text", tokenizer.token_bytes) as writer:
        writer.append(tokenizer.encode_documents([essay(1, 3000), essay(2, 50), essay(1, 3000)]))
        shards = writer.close()
    ((hashes, document),) = Windows(tokenizer, shards.info.bytes_per_token).of(shards)
    first, last = hashes[document == 0], hashes[document == 2]
    assert np.array_equal(first, last)
    assert len(np.unique(first)) == len(first)

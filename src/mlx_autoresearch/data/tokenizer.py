"""Byte-level BPE: the reference's split pattern and special tokens, trained and run by Hugging Face `tokenizers`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from mlx_autoresearch.errors import UserError

from .vocabulary import MAX_VOCAB_SIZE, MIN_VOCAB_SIZE

SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
SPECIAL_TOKENS = tuple(f"<|reserved_{i}|>" for i in range(4))
BOS_TOKEN = SPECIAL_TOKENS[0]

# The reference trains on this much text, and on no more than the head of a long document.
MAX_TRAINING_CHARS = 1_000_000_000
MAX_DOCUMENT_CHARS = 10_000

_LONGEST_RUN = 1_000_000  # the engine's limit is at 10 million
_RUN = re.compile(rf"\s{{{_LONGEST_RUN + 1},}}")


class Tokenizer:
    """A trained tokenizer; ids 0 … 255 + merges, then the special tokens, of which BOS is the first.

    Every string of Unicode text survives `decode(encode(text))` unchanged, and text that spells a special token
    is encoded as the text it is.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        bos_id = backend.token_to_id(BOS_TOKEN)
        if bos_id is None:
            raise UserError(f"this tokenizer has no {BOS_TOKEN} token: train one with `mlx-autoresearch prepare`")
        backend.encode_special_tokens = True  # says of text: even where it spells a special token
        self._backend = backend
        self.vocab_size: int = backend.get_vocab_size()
        self.bos_id: int = bos_id

    @classmethod
    def train(cls, documents: Iterable[str], vocab_size: int) -> Tokenizer:
        """Learns `vocab_size - 256 - specials` merges from the first 10,000 characters of each document, 10^9 in all.

        There are four special tokens, or as many as fit beside the 256 bytes (BOS alone at 257).
        Raises `UserError` when `vocab_size` is not in 257 … 65,536 or the text has too few pairs to merge.
        """
        check_vocab_size(vocab_size)
        specials = SPECIAL_TOKENS[: vocab_size - 256]
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - len(specials),
            min_frequency=0,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(_training_text(documents), trainer)
        backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
        found = backend.get_vocab_size()
        if found < vocab_size:
            raise UserError(
                f"the training text yields only {found:,} tokens: set vocab_size to {found} or less, or add text"
            )
        return cls(backend)

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Reads a `tokenizer.json`; raises `UserError` when there is none or it is damaged."""
        try:
            return cls(tokenizers.Tokenizer.from_str(Path(path).read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise UserError(f"there is no tokenizer at {path}: run `mlx-autoresearch prepare`") from None
        except UserError:
            raise
        except Exception as error:  # `tokenizers` raises plain Exception for a file it cannot parse
            raise UserError(f"{path} is not a tokenizer ({error}): run `mlx-autoresearch prepare` again") from error

    def save(self, path: str | Path) -> None:
        """Writes `tokenizer.json`, which `tokenizers` and `transformers` load as it is."""
        Path(path).write_text(self._backend.to_str(pretty=True), encoding="utf-8")

    def encode(self, text: str) -> list[int]:
        """The token ids of `text`, without BOS."""
        return [token for piece in _pieces(text) for token in self._backend.encode(piece, add_special_tokens=False).ids]

    def encode_documents(self, documents: Sequence[str]) -> list[np.ndarray]:
        """One (tokens,) int32 array a document, BOS first; encodes on all cores, outside the GIL."""
        pieces = [_pieces(document) for document in documents]
        encodings = iter(self._backend.encode_batch_fast([*chain(*pieces)], add_special_tokens=False))
        return [
            np.array([self.bos_id, *chain.from_iterable(next(encodings).ids for _ in document)], dtype=np.int32)
            for document in pieces
        ]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of `ids`; special tokens have none, and bytes that are not UTF-8 become U+FFFD."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=True)

    @cached_property
    def token_strings(self) -> list[bytes]:
        """The bytes that each token stands for; none for a special token."""
        specials = set(self._backend.get_added_tokens_decoder())
        byte_of = _byte_of_character()
        strings = []
        for token in range(self.vocab_size):
            characters = None if token in specials else self._backend.id_to_token(token)
            strings.append(bytes(byte_of[c] for c in characters or ""))
        return strings

    @cached_property
    def token_bytes(self) -> np.ndarray:
        """(vocab_size,) int32: how many bytes of text each token stands for; 0 for the special ones."""
        return np.array([len(string) for string in self.token_strings], dtype=np.int32)

    @cached_property
    def reference_token_bytes(self) -> np.ndarray:
        """(vocab_size,) int32: bytes as the reference counts them, decoding each token by itself.

        A token that is part of a character decodes to replacement characters of three bytes each, so that val_bpb
        comes out too low. For comparison with published figures only.
        """
        return np.array(
            [len(string.decode(errors="replace").encode()) for string in self.token_strings], dtype=np.int32
        )


def _pieces(text: str) -> list[str]:
    """The text, cut in runs of white space that the split pattern's engine gives up on: it backtracks through them."""
    if len(text) <= _LONGEST_RUN:
        return [text]
    cuts = [
        place for run in _RUN.finditer(text) for place in range(run.start() + _LONGEST_RUN, run.end(), _LONGEST_RUN)
    ]
    return [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]


def check_vocab_size(vocab_size: int) -> None:
    """Raises `UserError` unless a vocabulary of this size can be trained."""
    if not MIN_VOCAB_SIZE <= vocab_size <= MAX_VOCAB_SIZE:
        raise UserError(
            f"vocab_size must be between {MIN_VOCAB_SIZE} (every byte and {BOS_TOKEN}) and {MAX_VOCAB_SIZE:,}, "
            f"got {vocab_size:,}"
        )


def _training_text(documents: Iterable[str]) -> Iterator[str]:
    chars = 0
    for document in documents:
        head = document[:MAX_DOCUMENT_CHARS]
        chars += len(head)
        yield head
        if chars >= MAX_TRAINING_CHARS:
            return


def _byte_of_character() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 bytes stand for themselves, the others for U+0100 onwards, in order."""
    printable = set(chain(range(0x21, 0x7F), range(0xA1, 0xAD), range(0xAE, 0x100)))
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}

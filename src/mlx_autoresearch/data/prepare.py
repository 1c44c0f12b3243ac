"""Text in, prepared data out: fetch, train the tokenizer, tokenize, shuffle, write; once per corpus and vocabulary.

Prepared data lies in a folder named by what it was made from, so that asking again finds it without reading the text.
The folder is built beside its place and renamed into it, complete: whatever stops the work leaves nothing to mistake
for data. Memory stays bounded for any corpus: documents are streamed, and shuffled on disk, as tokens.
"""

from __future__ import annotations

import errno
import hashlib
import platform
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tokenizers
from filelock import FileLock, Timeout

from mlx_autoresearch.errors import UserError

from .prepared import TOKENIZER, TOKENIZER_SETTINGS, PreparedData, downloads_folder, open_prepared, prepared_folder
from .progress import Report
from .shards import Manifest, ShardWriter, TokenShards, file_info
from .tokenizer import Tokenizer, check_vocab_size

if TYPE_CHECKING:
    from .sources.base import Source

SHUFFLE_SEED = 0
BATCH_CHARS = 1 << 20  # encoded at a time: `tokenizers` needs some 100 bytes a token while it works
SECONDS_BETWEEN_LINES = 30


def prepare(source: Source, *, vocab_size: int, cache_dir: str | Path, quiet: bool = False) -> PreparedData:
    """Brings the text of `source` into `cache_dir` and makes tokenizer and token shards of it, unless they are there.

    Any number of processes may call it at once: one works, the others wait for its result. Progress goes to standard
    error, as bars on a terminal and as lines elsewhere, unless `quiet`. Raises `UserError` when the text is
    missing or too little for `vocab_size`, and when the disk is full or cannot be written.
    """
    cache = Path(cache_dir).expanduser()
    check_vocab_size(vocab_size)
    try:
        with _user_errors(cache):
            if (found := _find(source, vocab_size, cache)) is not None:
                return found
            with Report(quiet) as report, _locked(cache, report):
                report.say(f"preparing source {source.kind} with vocab_size {vocab_size:,} in {cache}")
                source.fetch(downloads_folder(cache), progress=report.bars)
                if (found := _find(source, vocab_size, cache)) is not None:  # another process was faster
                    return found
                return _build(source, vocab_size, cache, report)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; nothing half-made is kept: run `mlx-autoresearch prepare` again") from None


def _find(source: Source, vocab_size: int, cache: Path) -> PreparedData | None:
    try:
        return open_prepared(source, vocab_size=vocab_size, cache_dir=cache)
    except UserError:  # not there, damaged, or no text yet: making it mends it or says what is wrong
        return None


def _build(source: Source, vocab_size: int, cache: Path, report: Report) -> PreparedData:
    fingerprint = source.fingerprint(downloads_folder(cache))
    final = prepared_folder(cache, fingerprint, vocab_size)
    for stale in final.parent.glob(".making-*"):  # we hold the lock, so whoever made it was killed
        shutil.rmtree(stale)
    folder = final.with_name(f".making-{final.name}")
    folder.mkdir()
    try:
        manifest = _write(source, vocab_size, downloads_folder(cache), fingerprint, folder, report)
        if source.fingerprint(downloads_folder(cache)) != fingerprint:
            raise UserError("the text changed while it was being prepared: run `mlx-autoresearch prepare` again")
        if final.exists():  # damaged, or `_find` would have found it
            shutil.rmtree(final)
        folder.rename(final)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report.say(f"prepared: {final}")
    return PreparedData(final, manifest)


def _write(
    source: Source, vocab_size: int, downloads: Path, fingerprint: str, folder: Path, report: Report
) -> Manifest:
    with report.stage("training the tokenizer") as stage:
        tokenizer = Tokenizer.train(stage.counted(source.documents("train", downloads)), vocab_size)
    tokenizer.save(folder / TOKENIZER)

    total = stage.bytes if stage.complete else None
    with report.stage("tokenizing train", total) as stage:
        train = _tokenize("train", stage.counted(source.documents("train", downloads)), tokenizer, folder / "raw")
        _check_bytes(train, stage.bytes)
    with report.stage("tokenizing val") as stage:
        val = _tokenize("val", stage.counted(source.documents("val", downloads)), tokenizer, folder / "raw")
        _check_bytes(val, stage.bytes)

    with report.stage("arranging"):
        kept = _not_shared(val, train)
        dropped = val.info.documents - len(kept)
        if not len(kept):
            raise UserError(
                f"each of the {dropped:,} validation documents is in the training text too: "
                "give the source other text or a larger val_fraction"
            )
        train = _rearrange(train, np.arange(train.info.documents), folder, tokenizer, shuffle=not source.shuffled)
        val = _rearrange(val, kept, folder, tokenizer, shuffle=not source.shuffled)
        if len(_not_shared(val, train)) != val.info.documents:
            raise RuntimeError("a validation document is in the training split")
        shutil.rmtree(folder / "raw")

    for shards in (train, val):
        info = shards.info
        report.say(
            f"{shards.split}: {info.documents:,} documents, {info.bytes / 1e6:,.1f} MB, {info.tokens:,} tokens, "
            f"{info.bytes / (info.tokens - info.documents):.3f} bytes a token"
        )
    if dropped:
        report.say(f"val: {dropped:,} more documents left out, because they are in train too")
    manifest = Manifest(
        source=source.model_dump(mode="json"),
        fingerprint=fingerprint,
        vocab_size=vocab_size,
        tokenizer=TOKENIZER_SETTINGS,
        splits={"train": train.info, "val": val.info},
        val_duplicates_dropped=dropped,
        val_sha256=val.sha256,
        files={TOKENIZER: file_info(folder / TOKENIZER)},
        versions={"python": platform.python_version(), "numpy": np.__version__, "tokenizers": tokenizers.__version__},
    )
    manifest.save(folder)
    return manifest


def _tokenize(split: str, documents: Iterable[str], tokenizer: Tokenizer, folder: Path) -> TokenShards:
    """Writes `documents` in their order; two batches are encoded in the background while one goes to disk."""
    with ShardWriter(folder, split, tokenizer.token_bytes) as writer, ThreadPoolExecutor(2) as pool:
        pending: deque[Future[list[np.ndarray]]] = deque()
        try:
            for batch in _batches(documents):
                pending.append(pool.submit(tokenizer.encode_documents, batch))
                if len(pending) > 2:
                    writer.append(pending.popleft().result())
            for encoded in pending:
                writer.append(encoded.result())
        finally:
            pool.shutdown(cancel_futures=True)
        return writer.close()


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    chars = 0
    for document in documents:
        batch.append(document)
        chars += len(document)
        if chars >= BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def _check_bytes(shards: TokenShards, expected: int) -> None:
    if not shards.info.bytes:
        raise UserError(f"the source has no text in its {shards.split} split: give it more text")
    if shards.info.bytes != expected:
        raise RuntimeError(f"{expected} bytes of {shards.split} text became tokens of {shards.info.bytes} bytes")


def _not_shared(val: TokenShards, train: TokenShards) -> np.ndarray:
    """Indices of the validation documents that are not in training."""
    held_out = list(_digests(val))
    shared = set(held_out).intersection(_digests(train))
    return np.flatnonzero([digest not in shared for digest in held_out])


def _digests(shards: TokenShards) -> Iterator[bytes]:
    """A hash a document; over its tokens, which are equal exactly where the texts are."""
    tokens = np.asarray(shards.tokens)  # slices of a memmap are slow to make
    start = 0
    for end in shards.offsets[1:].tolist():
        yield hashlib.blake2b(tokens[start:end].data, digest_size=16).digest()
        start = end


def _rearrange(
    raw: TokenShards, order: np.ndarray, folder: Path, tokenizer: Tokenizer, *, shuffle: bool
) -> TokenShards:
    """Writes the documents named by `order`, in that order or shuffled."""
    if shuffle:
        order = np.random.RandomState(SHUFFLE_SEED).permutation(order)  # its streams are frozen, unlike Generator's
    tokens = np.asarray(raw.tokens)
    with ShardWriter(folder, raw.split, tokenizer.token_bytes) as writer:
        for chunk in np.array_split(order, len(order) // 4096 + 1):
            bounds = zip(raw.offsets[chunk].tolist(), raw.offsets[chunk + 1].tolist(), strict=True)
            writer.append([tokens[start:end] for start, end in bounds])
        return writer.close()


@contextmanager
def _user_errors(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
        advice = "free some space" if full else "make it writable or choose another folder"
        raise UserError(
            f"cannot prepare data in {cache} ({what}): {advice} and run `mlx-autoresearch prepare` again; "
            "nothing half-made is kept"
        ) from error


@contextmanager
def _locked(cache: Path, report: Report) -> Iterator[None]:
    folder = cache / "prepared"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report.say(f"waiting for another process that prepares data in {cache}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()

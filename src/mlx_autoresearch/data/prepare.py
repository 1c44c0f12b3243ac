"""Prepares text for training: fetch, train a tokenizer, tokenize, shuffle, write; once per corpus and vocabulary.

The folder of prepared data is named by what it was made from, so that a second call finds it without reading the text.
It is built under another name and renamed once complete, so that an interruption leaves nothing that looks like data.
Memory stays bounded for any corpus: documents are streamed, and shuffled on disk as tokens.
"""

from __future__ import annotations

import errno
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock

from mlx_autoresearch.errors import UserError
from mlx_autoresearch.machine.lock import acquired
from mlx_autoresearch.machine.versions import package_versions, python_version

from .arrange import arrange
from .prepared import (
    ORDER,
    TOKENIZER,
    TOKENIZER_SETTINGS,
    PreparedData,
    downloads_folder,
    find_prepared,
    open_prepared,
    prepared_folder,
)
from .progress import Report
from .shards import Manifest, ShardWriter, TokenShards, file_info
from .tokenizer import Tokenizer, check_vocab_size

if TYPE_CHECKING:
    from .sources.base import Corpus, Source, Split

_FAR = 3  # times more or less than val_fraction is said
_DECIDING = ("numpy", "tokenizers")  # the packages that decide what a text becomes
BATCH_CHARS = 1 << 20  # encoded at a time: `tokenizers` needs some 100 bytes a token while it works


def prepare(source: Source, *, vocab_size: int, cache_dir: str | Path, quiet: bool = False) -> PreparedData:
    """Fetch the text of `source` into `cache_dir` and make its tokenizer and token shards, unless they are there.

    Any number of processes may call it at once: one works, the others wait for its result. Progress goes to standard
    error, as bars on a terminal and as lines elsewhere, unless `quiet`. Raises `UserError` when the text is
    missing or too little for `vocab_size`, and when the disk is full or cannot be written.
    """
    cache = Path(cache_dir).expanduser()
    check_vocab_size(vocab_size)
    try:
        with _user_errors(cache):
            with suppress(UserError):  # not there, damaged, or no text yet: what follows mends it or says what is wrong
                return open_prepared(source, vocab_size=vocab_size, cache_dir=cache)
            with Report(quiet) as report, _locked(cache, report):
                report.say(f"preparing source {source.kind} with vocab_size {vocab_size:,} in {cache}")
                source.fetch(downloads_folder(cache), progress=report.bars)
                corpus = source.open(downloads_folder(cache))
                with suppress(UserError):  # another process was faster
                    return find_prepared(corpus, vocab_size, cache)
                return _build(corpus, vocab_size, cache, report)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; nothing half-made is kept: run `mlx-autoresearch prepare` again") from None


def _build(corpus: Corpus, vocab_size: int, cache: Path, report: Report) -> PreparedData:
    final = prepared_folder(cache, corpus.fingerprint, vocab_size)
    for stale in final.parent.glob(".making-*"):  # we hold the lock, so whoever made it was killed
        shutil.rmtree(stale)
    folder = final.with_name(f".making-{final.name}")
    folder.mkdir()
    try:
        manifest = _write(corpus, vocab_size, folder, report)
        if corpus.source.open(downloads_folder(cache)).fingerprint != corpus.fingerprint:
            raise UserError("the text changed while it was being prepared: run `mlx-autoresearch prepare` again")
        if final.exists():  # damaged, or it would have been found
            shutil.rmtree(final)
        folder.rename(final)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report.say(f"prepared: {final}")
    return PreparedData(final, manifest)


def _write(corpus: Corpus, vocab_size: int, folder: Path, report: Report) -> Manifest:
    """All files of a prepared folder: tokenizer, then the tokens in the source's order, then in their final order."""
    with report.stage("training the tokenizer") as stage:
        tokenizer = Tokenizer.train(stage.counted(corpus.documents("train")), vocab_size)
    tokenizer.save(folder / TOKENIZER)
    train = _tokenize_split("train", corpus, tokenizer, folder / "raw", report, stage.bytes if stage.complete else None)
    val = _tokenize_split("val", corpus, tokenizer, folder / "raw", report)
    with report.stage("arranging"):
        arranged = arrange(train, val, folder, tokenizer, shuffle=not corpus.source.shuffled)
        shutil.rmtree(folder / "raw")
    share, wanted = val.info.bytes / (train.info.bytes + val.info.bytes), corpus.source.share_wanted
    if wanted is not None and not wanted / _FAR < share < wanted * _FAR:
        report.say(
            f"warning: {share:.1%} of the text is held out for validation, not {wanted:.1%} (val_fraction), since "
            "whole files are: give it more and smaller ones, or name those for validation (source.val_paths)"
        )
    if arranged.duplicates or arranged.resembling:
        report.say(
            f"held out: {arranged.duplicates:,} more documents left out, because they are in train too, and "
            f"{arranged.resembling:,} that resemble one in train or another held-out one"
        )
    manifest = Manifest(
        source=corpus.source.model_dump(mode="json"),
        fingerprint=corpus.fingerprint,
        vocab_size=vocab_size,
        tokenizer=TOKENIZER_SETTINGS,
        splits={part: shards.info for part, shards in arranged.parts.items()},
        duplicates_dropped=arranged.duplicates,
        resembling_dropped=arranged.resembling,
        val_sha256=arranged.parts["val"].sha256,
        files={name: file_info(folder / name) for name in (TOKENIZER, ORDER)},
        versions={"python": python_version()} | package_versions(_DECIDING),
    )
    manifest.save(folder)
    return manifest


def _tokenize_split(
    split: Split, corpus: Corpus, tokenizer: Tokenizer, folder: Path, report: Report, total: int | None = None
) -> TokenShards:
    """One split in the source's order; total: its bytes, where they are known."""
    with report.stage(f"tokenizing {split}", total) as stage:
        shards = _tokenize(split, stage.counted(corpus.documents(split)), tokenizer, folder)
        if shards.info.bytes != stage.bytes:
            raise RuntimeError(f"{stage.bytes} bytes of {split} text became tokens of {shards.info.bytes} bytes")
        return shards


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
    if not acquired(lock):
        report.say(f"waiting for another process that prepares data in {cache}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()

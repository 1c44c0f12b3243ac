"""What stays on the disk of an experiment that was not kept: small files, and of old ones what explains them."""

from __future__ import annotations

import os
from pathlib import Path

from mlx_autoresearch.ledger.files import BRIEF, CODE, DIFF, OUTPUT, SCRATCH, TRACEBACK, TRANSCRIPT
from mlx_autoresearch.ledger.held import remove
from mlx_autoresearch.training.files import CHECKPOINT

from .home import Search

_SMALL = 1 << 20  # bytes of a file that stays
_BUDGET = 1 << 30  # bytes of all these experiments together; above it, the oldest keep what explains them
_EXPLAIN = (DIFF, BRIEF, TRANSCRIPT, OUTPUT, TRACEBACK)


def clean(folder: Path) -> None:
    """Delete what was there for the processes of an experiment alone."""
    for path in (*folder.glob(f"{SCRATCH}-*"), folder / CODE):
        remove(path)


def thin(search: Search) -> None:
    """Delete checkpoints and large files of the latest experiment where it was not kept. Where all of these are too
    much, delete most of the oldest.

    Their commits stay in git, under refs/research/<tag>/<number>.
    """
    records = search.ledger.records()
    folders = [search.folder(r.number) for r in records if r.event == "experiment" and r.status != "keep"]
    if folders and folders[-1] == search.folder(records[-1].number):
        for file in _files(folders[-1]):
            if file.name == CHECKPOINT or file.is_symlink() or file.lstat().st_size > _SMALL:
                remove(file)
    sizes = {folder: sum(file.lstat().st_size for file in _files(folder)) for folder in folders}
    excess = sum(sizes.values()) - _BUDGET
    for folder, size in sizes.items():
        if excess <= 0:
            break
        for path in list(folder.iterdir()) if folder.is_dir() else []:
            if path.name not in _EXPLAIN:
                remove(path)
        excess -= size - sum(file.lstat().st_size for file in _files(folder))


def _files(folder: Path) -> list[Path]:
    return [Path(below, name) for below, _, names in os.walk(folder) for name in names]

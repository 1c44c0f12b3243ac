"""Datasets of the Hugging Face hub: presets are downloaded file by file, others are read through `datasets`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import quote

from pydantic import Field, field_validator, model_validator

from mlx_autoresearch.errors import UserError

from ..download import Download, fetch_all, locked
from .base import Part, Source, Split, TextFile

if TYPE_CHECKING:
    from rich.progress import Progress

ENDPOINT = "https://huggingface.co"


@dataclass(frozen=True)
class Preset:
    """A dataset of parquet files with its validation pinned: the last file, or rows of the only one."""

    repo: str
    pattern: str  # of the file names, to be filled with a number
    count: int  # files that there are
    num_shards: int  # training files, unless told otherwise
    shuffled: bool
    val_rows: tuple[int, int] = (0, 0)  # where there is one file; training begins after them


PRESETS = {
    "climbmix": Preset("karpathy/climbmix-400b-shuffle", "shard_{:05d}.parquet", 6543, 10, shuffled=True),
    # Rows 0 to 9,999 are the card's test set, and left alone.
    "tinystories": Preset(
        "karpathy/tinystories-gpt4-clean",
        "tinystories_gpt4_clean.parquet",
        1,
        1,
        shuffled=True,
        val_rows=(10_000, 20_000),
    ),
    # 2 GB a file; the dataset card does not say whether it is shuffled.
    "fineweb-edu": Preset("HuggingFaceFW/fineweb-edu", "sample/10BT/{:03d}_00000.parquet", 14, 1, shuffled=False),
}


class Hub(Source, frozen=True):
    """A preset (climbmix, tinystories, fineweb-edu) or any `owner/name` on the hub; a record is a document."""

    kind: Literal["hub"] = "hub"
    dataset: str = Field(default="climbmix", description=f"a preset ({', '.join(PRESETS)}) or owner/name")
    revision: str = Field(default="main", min_length=1, description="branch, tag or commit")
    num_shards: int | None = Field(
        default=None, ge=1, description="presets: training files (climbmix 10, fineweb-edu 1)"
    )
    endpoint: str | None = Field(
        default=None, pattern="^https?://", description="presets: the hub; null is HF_ENDPOINT or huggingface.co"
    )
    subset: str | None = Field(default=None, description="owner/name: configuration of the dataset")
    split: str = Field(default="train", min_length=1, description="owner/name: split to train on")
    val_split: str | None = Field(
        default=None, description="owner/name: split to validate on; null holds out the tail of `split`"
    )
    column: str = Field(default="text", min_length=1, description="owner/name: column that holds the text")
    max_documents: int | None = Field(
        default=None, ge=2, description="owner/name: documents fetched of a split at most; null is all"
    )

    location: ClassVar[frozenset[str]] = frozenset({"num_shards", "endpoint"})

    @field_validator("dataset")
    @classmethod
    def _known(cls, dataset: str) -> str:
        if dataset not in PRESETS and "/" not in dataset:
            raise ValueError(f"no preset {dataset!r}; give one of {', '.join(PRESETS)}, or owner/name")
        return dataset

    @model_validator(mode="after")
    def _fitting(self) -> Hub:
        general = ("subset", "split", "val_split", "column", "max_documents")
        pinned = ("val_fraction",) if self.preset or self.val_split else ()
        for name in (*(general if self.preset else ("num_shards", "endpoint")), *pinned):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` has no effect on dataset {self.dataset!r}; leave it out")
        if self.preset and self.num_shards and self.num_shards > max(self.preset.count - 1, 1):
            raise ValueError(f"num_shards is at most {max(self.preset.count - 1, 1)} for {self.dataset}")
        if self.val_split == self.split:
            raise ValueError("val_split is the training split; name another, or leave it out")
        return self

    @property
    def preset(self) -> Preset | None:
        return PRESETS.get(self.dataset)

    @property
    def shuffled(self) -> bool:
        return self.preset is not None and self.preset.shuffled

    def fetch(self, downloads: Path, progress: Progress | None = None) -> None:
        files = self.files(downloads)
        if self.preset is None:
            for split, path in files:
                self._export(split, path)
            return
        from .parquet import check_parquet

        base = (self.endpoint or os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
        base = f"{base}/datasets/{self.preset.repo}/resolve/{quote(self.revision, safe='')}"
        token = os.environ.get("HF_TOKEN") or None
        fetch_all(
            [Download(f"{base}/{name}", path, check=check_parquet, token=token) for name, path in files],
            progress=progress,
        )

    def files(self, downloads: Path) -> list[tuple[str, Path]]:
        """Training files, then the validation file where validation has one of its own."""
        folder = downloads / "hub" / (self.preset.repo if self.preset else self.dataset).strip("/").replace("/", "--")
        if self.preset:
            numbers = [*range(self.num_shards or self.preset.num_shards), self.preset.count - 1]
            names = dict.fromkeys(self.preset.pattern.format(number) for number in numbers)
            return [(name, folder / quote(self.revision, safe="") / name) for name in names]
        choice = [self.subset, self.revision, self.column, self.max_documents]
        digest = hashlib.sha256(json.dumps(choice).encode()).hexdigest()[:8]
        return [(split, folder / digest / f"{split}.parquet") for split in (self.split, self.val_split) if split]

    def parts(self, files: Sequence[TextFile]) -> dict[Split, list[Part]]:
        if len(files) > 1:  # the last one is pinned for validation and never trained on
            return {"train": [Part(file.path) for file in files[:-1]], "val": [Part(files[-1].path)]}
        if self.preset:
            path, (first, last) = files[0].path, self.preset.val_rows
            return {"train": [Part(path, last)], "val": [Part(path, first, last)]}
        return super().parts(files)

    def read(self, path: Path) -> Iterator[str]:
        from .parquet import parquet_texts

        return parquet_texts(path, "text")

    def _export(self, split: str, path: Path) -> None:
        """Stream one split into a parquet file of its text alone: no second copy of the dataset in any cache."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if path.exists():
            return
        with locked(path.parent):
            if path.exists():  # another process was faster
                return
            unfinished = path.with_suffix(".part")
            texts = self._stream(split)
            try:
                with pq.ParquetWriter(unfinished, pa.schema([("text", pa.string())]), compression="zstd") as writer:
                    while batch := list(islice(texts, 1024)):
                        writer.write_table(pa.table({"text": pa.array(batch, pa.string())}))
                os.replace(unfinished, path)
            except OSError as error:
                raise UserError(
                    f"cannot write {path} ({error.strerror or error}); free space or choose another folder"
                ) from error

    def _stream(self, split: str) -> Iterator[str]:
        name = f"hub dataset {self.dataset!r}"
        try:
            import datasets  # seconds to import, and needed here alone

            rows: Any = datasets.load_dataset(
                self.dataset,
                self.subset,
                split=split,
                revision=self.revision if self.revision != "main" else None,
                streaming=True,
            )
            for row in islice(rows, self.max_documents):
                if self.column not in row:
                    raise UserError(f"{name}: no column `{self.column}` (it has: {', '.join(row)}); set `column`")
                text = row[self.column]
                if text is None:
                    continue
                if not isinstance(text, str):
                    raise UserError(f"{name}: column `{self.column}` holds {type(text).__name__}, not text")
                yield text
        except UserError:
            raise
        except ConnectionError as error:
            raise UserError(f"cannot reach the hub for {name}; check the network, or use `kind: stdlib`") from error
        except FileNotFoundError as error:
            raise UserError(
                f"{name} is not on the hub, or closed to us; check owner/name (gated: set HF_TOKEN)"
            ) from error
        except Exception as error:  # whatever the library, its readers and its network stack may raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(f"{name}, subset {self.subset}, split {split}: {reason}") from error

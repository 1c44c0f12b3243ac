"""Downloads files over HTTP, in parallel. A cut download resumes; a file gets its name only once complete and checked.

The bytes of `name` are first written to `name.part`. `name.json` keeps what the server promised about the file (size,
checksum, validator): it is used to resume the part, and later to see without reading `name` that it is complete.
Uses urllib, which is always there: `httpx` and `requests` come and go with the versions of `datasets`.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import http.client
import json
import os
import random
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from email.message import Message
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from mlx_autoresearch.errors import UserError

if TYPE_CHECKING:
    from rich.progress import Progress

CHUNK_BYTES = 1 << 20
LONGEST_WAIT = 300.0  # seconds; a server that asks for more is answered by giving up
NETWORK_ERRORS = (OSError, http.client.HTTPException)


@dataclass(frozen=True)
class Download:
    """One file to download to `path`; `check` raises UserError when the downloaded file is not sound."""

    url: str
    path: Path
    sha256: str | None = None
    check: Callable[[Path], None] | None = None
    token: str | None = field(default=None, repr=False)  # goes to the url's own host, never along a redirect elsewhere

    @property
    def part(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part")


def fetch_all(
    items: Sequence[Download],
    workers: int = 8,
    *,
    attempts: int = 5,
    timeout: float = 20.0,
    sleep: Callable[[float], object] | None = None,
    progress: Progress | None = None,
) -> None:
    """Download every file that is not already complete, `workers` at a time.

    `attempts` counts failures in a row without a new byte; `timeout` is seconds of silence. Raises UserError when a
    file cannot be downloaded or written. After an interruption the parts remain, and the next call resumes them.
    """
    missing = {
        item.path: item for item in items if not is_complete(item)
    }  # no lock: a read-only folder may be complete
    stop = threading.Event()
    sleep = sleep or stop.wait
    with locked(*{path.parent for path in missing}), ThreadPoolExecutor(workers) as pool:
        transfers = [_Transfer(item, timeout, stop, progress) for item in missing.values()]
        futures = [pool.submit(transfer.run, attempts, sleep) for transfer in transfers]
        try:
            for future in as_completed(futures):
                future.result()
        finally:  # a failure or Ctrl-C: the others stop at their next chunk
            stop.set()
            pool.shutdown(cancel_futures=True)


def is_complete(item: Download) -> bool:
    """True when the file is here with its recorded size and passes its check.

    A file without a record (put there by hand) is trusted only on the word of a check.
    """
    if not item.path.is_file():
        return False
    promise = _Promise.load(item.path)
    if promise.size is None and item.check is None:
        return False
    if promise.size is not None and promise.size != item.path.stat().st_size:
        return False
    if item.sha256 is not None and item.sha256 != promise.sha256:
        return False
    try:
        if item.check:
            item.check(item.path)
    except UserError:
        return False
    return True


@contextlib.contextmanager
def locked(*folders: Path) -> Iterator[None]:
    """Create the folders and keep other processes out of them; raises UserError when they cannot be written."""
    with contextlib.ExitStack() as stack:
        for folder in sorted(folders):  # every process locks in the same order: no deadlock
            try:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(folder / ".lock"))
            except OSError as error:
                raise UserError(f"cannot write in {folder} ({error.strerror}); choose another folder") from error
        yield


class _Retry(Exception):
    """This attempt failed; another may succeed, `wait` seconds from now at the earliest."""

    def __init__(self, reason: str, wait: float = 0.0):
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class _Promise:
    """What the server said about a file when it began to send it."""

    url: str | None = None
    size: int | None = None  # bytes
    sha256: str | None = None
    validator: str | None = None  # strong ETag or Last-Modified: proves that a part belongs to today's file

    @staticmethod
    def _beside(path: Path) -> Path:
        return path.with_name(f"{path.name}.json")

    @classmethod
    def load(cls, path: Path) -> _Promise:
        try:
            return cls(**json.loads(cls._beside(path).read_text()))
        except (OSError, ValueError, TypeError):  # missing, torn or foreign: treated as no promise
            return cls()

    def save(self, path: Path) -> None:
        self._beside(path).write_text(json.dumps(asdict(self)))


class _Transfer:
    """One file on its way, through as many attempts as it takes."""

    def __init__(self, item: Download, timeout: float, stop: threading.Event, progress: Progress | None):
        self.item, self.timeout, self.stop, self.progress = item, timeout, stop, progress

    def run(self, attempts: int, sleep: Callable[[float], object]) -> None:
        item = self.item
        failures, furthest = 0, _size(item.part)
        task = self.progress.add_task(item.path.name, total=None) if self.progress else None
        while not self.stop.is_set():
            try:
                if is_complete(item):  # another process may have brought it while we waited for the lock
                    return
                promise = self._receive(task)
                self._verify(promise)
                os.replace(item.part, item.path)
                return
            except _Retry as retry:
                if self.stop.is_set():
                    return
                if _size(item.part) > furthest:  # a connection that breaks but advances does not count as failing
                    failures, furthest = 0, _size(item.part)
                failures += 1
                if failures >= attempts:
                    raise UserError(
                        f"cannot download {item.url}: {retry} ({attempts} attempts); check the network and run again, "
                        "what has arrived is kept (`kind: stdlib` needs no network)"
                    ) from retry
                jitter = random.uniform(0.5, 1.0)  # so that the workers do not retry at the same moment
                sleep(max(min(2.0**failures, 60.0) * jitter, retry.wait))
            except OSError as error:  # network errors became _Retry where they arose: this one is the disk
                raise UserError(
                    f"cannot write {item.path} ({error.strerror}); free space or choose another folder"
                ) from error

    def _receive(self, task: Any) -> _Promise:
        """Bring the bytes that the part lacks and return the promise they came under."""
        item, promise = self.item, _Promise.load(self.item.path)
        have = _size(item.part)
        if have and (promise.url != item.url or promise.validator is None):
            have = 0  # nothing proves that these bytes begin today's file
        if have and have == promise.size:
            return promise  # interrupted between the last byte and the check
        response, linked = self._open(have, promise)
        with response:
            headers: Message = response.headers
            if headers.get("Content-Encoding", "identity").lower() != "identity":
                raise UserError(f"cannot download {item.url}: the server insists on encoding it; try another endpoint")
            linked = linked or _linked_sha256(headers)
            if response.status not in (200, 206):
                raise _Retry(f"HTTP {response.status} in place of the file")
            if response.status == 206:
                size = _continued_size(headers, have, promise) if have else None
                if size is None:
                    item.part.unlink(missing_ok=True)
                    raise _Retry("the file changed on the server")
                promise = replace(promise, size=size)
            else:  # 200: from the start, because nothing was here, it changed, or the server knows no ranges
                chunked = headers.get("Transfer-Encoding", "").lower() == "chunked"
                if response.length is None and not chunked and not (item.sha256 or linked):
                    raise _Retry("the server gives no length, so a cut would go unseen")
                have, promise = 0, _Promise(item.url, response.length, item.sha256 or linked, _validator(headers))
                item.part.unlink(missing_ok=True)  # first, so that no crash can pair old bytes with a new promise
                promise.save(item.path)
            with item.part.open("ab") as file:
                while chunk := self._read(response):
                    file.write(chunk)
                    file.flush()  # what has arrived survives even a kill
                    have += len(chunk)
                    if self.progress:
                        self.progress.update(task, completed=have, total=promise.size)
        if promise.size is None:  # a chunked body that ended properly, or a checksum will tell
            promise = replace(promise, size=have)
            promise.save(item.path)
        return promise

    def _open(self, have: int, promise: _Promise) -> tuple[Any, str | None]:
        item = self.item
        headers = {"User-Agent": "mlx_autoresearch", "Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": str(promise.validator)}
        request = urllib.request.Request(item.url, headers=headers)
        if item.token:
            request.add_unredirected_header("Authorization", f"Bearer {item.token}")
        redirects = _Redirects()
        try:
            return urllib.request.build_opener(redirects).open(request, timeout=self.timeout), redirects.sha256
        except urllib.error.HTTPError as error:
            with error:
                wait = _retry_after(error.headers.get("Retry-After"))
                if error.code == 416:  # the part is no prefix of what the server has now
                    item.part.unlink(missing_ok=True)
                elif error.code in (401, 403):
                    raise UserError(
                        f"{item.url} is not open to us (HTTP {error.code}); set HF_TOKEN if it is gated"
                    ) from error
                elif error.code < 500 and error.code not in (408, 429):
                    raise UserError(
                        f"cannot download {item.url}: HTTP {error.code} {error.reason}; check the name"
                    ) from error
                if wait > LONGEST_WAIT:
                    raise UserError(f"{item.url}: the server asks us to wait {wait:.0f} s; run again then") from error
                raise _Retry(f"HTTP {error.code} {error.reason}", wait) from error
        except NETWORK_ERRORS as error:
            raise _Retry(_reason(error)) from error

    def _read(self, response: Any) -> bytes:
        if self.stop.is_set():
            raise _Retry("stopped")
        try:
            return response.read1(CHUNK_BYTES)  # read1 hands over what is there, so Ctrl-C never waits for a full chunk
        except NETWORK_ERRORS as error:
            raise _Retry(_reason(error)) from error

    def _verify(self, promise: _Promise) -> None:
        """Raise _Retry unless the part is the whole file and a sound one; an unsound part is removed."""
        item = self.item
        size = _size(item.part)
        if promise.size is not None and size < promise.size:
            raise _Retry(f"the connection closed after {size:,} of {promise.size:,} bytes")
        try:
            if promise.size is not None and size > promise.size:
                raise UserError(f"{size:,} bytes arrived where {promise.size:,} were announced")
            for expected in {item.sha256, promise.sha256} - {None}:
                with item.part.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                        raise UserError(f"the bytes do not match their checksum {expected}")
            if item.check:
                item.check(item.part)
        except UserError as error:
            item.part.unlink()
            raise _Retry(f"what arrived is corrupt: {error}") from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Keeps the checksum that the hub announces when it redirects to its storage, and the token on its own host."""

    sha256: str | None = None

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        self.sha256 = self.sha256 or _linked_sha256(headers)
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        token = req.unredirected_hdrs.get("Authorization")
        if new and token and urllib.parse.urlsplit(newurl)[:2] == urllib.parse.urlsplit(req.full_url)[:2]:
            new.add_unredirected_header("Authorization", token)
        return new


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _linked_sha256(headers: Message) -> str | None:
    """The hub's `X-Linked-Etag` is the SHA-256 of a file in large storage (40 digits, a git id, for small ones)."""
    etag = headers.get("X-Linked-Etag", "").strip('"')
    return etag if re.fullmatch("[0-9a-f]{64}", etag) else None


def _validator(headers: Message) -> str | None:
    """What If-Range may be asked with: a weak ETag does not promise equal bytes (RFC 9110, 13.1.5)."""
    etag = headers.get("ETag", "W/")
    return headers.get("Last-Modified") if etag.startswith("W/") else etag


def _continued_size(headers: Message, have: int, promise: _Promise) -> int | None:
    """Bytes of the whole file if this 206 answer continues our part, else None: some servers ignore If-Range."""
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
    if span is None or int(span[1]) != have or int(span[2]) != (promise.size or int(span[2])):
        return None
    etag = headers.get("ETag")
    same = etag is None or not str(promise.validator).startswith('"') or etag == promise.validator
    return int(span[2]) if same else None


def _retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header (seconds or a date) asks for."""
    if value is None:
        return 0.0
    try:
        return float(value) if value.isdigit() else email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except ValueError:
        return 0.0


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", error)  # URLError wraps the error that matters
    return f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__

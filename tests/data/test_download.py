"""Files arrive whole and as they should be, or there is one clear line and no file."""

from __future__ import annotations

import email.utils
import errno
import hashlib
import io
import os
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.progress import Progress

from mlx_autoresearch.data.download import Download, fetch_all
from mlx_autoresearch.data.sources.parquet import check_parquet
from mlx_autoresearch.errors import UserError
from tests.support.downloads import BODY, OTHER, fetch
from tests.support.http_server import Reply, Server


def parquet_bytes(texts: list[str]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), sink)
    return sink.getvalue()


def assert_nothing_usable(path: Path) -> None:
    assert not path.exists()
    assert not path.with_name(path.name + ".part").exists()


def test_files_arrive_in_parallel_and_are_not_fetched_again(server: Server, tmp_path: Path) -> None:
    bodies = {f"/{i}": bytes([i]) * (1000 + i) for i in range(12)}
    for name, body in bodies.items():
        server.serve(name, Reply(body))
    items = [Download(server.url + name, tmp_path / "deep" / "down" / name[1:]) for name in bodies]
    fetch_all(items + items[:1])
    assert {f"/{item.path.name}": item.path.read_bytes() for item in items} == bodies
    assert not list(tmp_path.rglob("*.part"))
    assert len(server.requests) == len(items)
    fetch_all(items)
    assert len(server.requests) == len(items)


def test_passing_faults_are_retried_with_growing_waits(server: Server, tmp_path: Path) -> None:
    server.serve("/a", [Reply(status=code) for code in (500, 503, 429, 408)] + [Reply(BODY)])
    waits = fetch(server, tmp_path / "a", attempts=5)
    assert (tmp_path / "a").read_bytes() == BODY
    assert len(waits) == 4
    for failure, wait in enumerate(waits, 1):
        assert 2**failure / 2 <= wait <= 2**failure


def test_retry_after_is_honoured_in_seconds_and_as_a_date(server: Server, tmp_path: Path) -> None:
    date = email.utils.formatdate(time.time() + 100, usegmt=True)
    server.serve(
        "/a", [Reply(status=429, headers={"Retry-After": "77"}), Reply(status=503, headers={"Retry-After": date})]
    )
    server.routes["/a"].append(Reply(BODY))
    first, second = fetch(server, tmp_path / "a")
    assert first == 77
    assert 90 < second <= 100


def test_a_server_that_asks_for_hours_is_left_alone(server: Server, tmp_path: Path) -> None:
    server.serve("/a", Reply(status=429, headers={"Retry-After": "7200"}))
    with pytest.raises(UserError, match="wait 7200 s"):
        fetch(server, tmp_path / "a")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "message"), [(404, "HTTP 404.*check the name"), (410, "HTTP 410"), (403, "HF_TOKEN")]
)
def test_refusals_are_final(server: Server, tmp_path: Path, status: int, message: str) -> None:
    server.serve("/a", Reply(status=status))
    with pytest.raises(UserError, match=message):
        fetch(server, tmp_path / "a")
    assert len(server.requests) == 1
    assert_nothing_usable(tmp_path / "a")


def test_an_unreachable_host_is_one_clear_line(tmp_path: Path) -> None:
    with Server() as gone:
        url = gone.url
    with pytest.raises(UserError, match=r"cannot download http://127.0.0.1.*ConnectionRefusedError.*check the network"):
        fetch_all([Download(f"{url}/a", tmp_path / "a")], attempts=2, sleep=lambda _: None)


def test_an_announced_length_that_never_comes_is_an_error(server: Server, tmp_path: Path) -> None:
    server.serve("/a", Reply(BODY, length=len(BODY) + 100))
    with pytest.raises(UserError, match="attempts"):
        fetch(server, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_length_that_hides_the_end_is_caught_by_the_check(server: Server, tmp_path: Path) -> None:
    body = parquet_bytes(["a"] * 1000)
    server.serve("/a", Reply(body, length=len(body) - 100))
    with pytest.raises(UserError, match=r"corrupt.*parquet"):
        fetch(server, tmp_path / "a", check=check_parquet)
    assert_nothing_usable(tmp_path / "a")


def test_a_corrupt_parquet_is_thrown_away_and_fetched_from_the_start(server: Server, tmp_path: Path) -> None:
    body = parquet_bytes(["a"] * 1000)
    server.serve("/a", [Reply(body[:-8] + b"\xff" * 8), Reply(body)])
    fetch(server, tmp_path / "a", check=check_parquet)
    assert pq.read_table(tmp_path / "a").num_rows == 1000
    assert server.ranges() == [None, None]


def test_a_server_that_always_sends_rubbish_is_given_up(server: Server, tmp_path: Path) -> None:
    server.serve("/a", Reply(BODY))
    with pytest.raises(UserError, match="corrupt"):
        fetch(server, tmp_path / "a", attempts=4, check=check_parquet)
    assert len(server.requests) == 4


def test_a_known_checksum_is_compared(server: Server, tmp_path: Path) -> None:
    server.serve("/a", [Reply(OTHER), Reply(BODY)])
    for _ in range(2):
        fetch(server, tmp_path / "a", sha256=hashlib.sha256(BODY).hexdigest())
        assert (tmp_path / "a").read_bytes() == BODY
        assert len(server.requests) == 2


def test_a_complete_file_of_another_checksum_is_fetched_again(server: Server, tmp_path: Path) -> None:
    server.serve("/a", [Reply(OTHER), Reply(BODY)])
    fetch(server, tmp_path / "a")
    fetch(server, tmp_path / "a", sha256=hashlib.sha256(BODY).hexdigest())
    assert (tmp_path / "a").read_bytes() == BODY


def test_the_checksum_announced_with_the_redirect_is_compared(server: Server, tmp_path: Path) -> None:
    announced = {"X-Linked-Etag": f'"{hashlib.sha256(BODY).hexdigest()}"', "Location": "/storage"}
    server.serve("/a", Reply(status=302, headers=announced))
    server.serve("/storage", [Reply(BODY[:-1] + b"?"), Reply(BODY)])
    fetch(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY
    assert len(server.requests) == 4


def test_the_token_stays_with_the_host_it_is_for(server: Server, tmp_path: Path) -> None:
    with Server({"/storage": Reply(BODY)}) as storage:
        server.serve("/a", Reply(status=307, headers={"Location": "/moved"}))
        server.serve("/moved", Reply(status=302, headers={"Location": f"{storage.url}/storage"}))
        fetch(server, tmp_path / "a", token="secret")
        assert [headers.get("Authorization") for _, headers in server.requests] == ["Bearer secret"] * 2
        assert "Authorization" not in storage.requests[0][1]
    assert not any(b"secret" in path.read_bytes() for path in tmp_path.iterdir())
    assert "secret" not in repr(Download("u", tmp_path, token="secret"))


def test_a_chunked_body_is_complete_only_with_its_last_chunk(server: Server, tmp_path: Path) -> None:
    server.serve("/a", [Reply(BODY, framing="chunked", etag=None, cut=1000), Reply(BODY, framing="chunked")])
    assert len(fetch(server, tmp_path / "a")) == 1
    assert (tmp_path / "a").read_bytes() == BODY
    fetch(server, tmp_path / "a")
    assert len(server.requests) == 2


def test_a_body_without_any_length_needs_a_checksum(server: Server, tmp_path: Path) -> None:
    server.serve("/a", Reply(BODY, framing="none"))
    with pytest.raises(UserError, match="no length"):
        fetch(server, tmp_path / "a")
    fetch(server, tmp_path / "a", sha256=hashlib.sha256(BODY).hexdigest())
    assert (tmp_path / "a").read_bytes() == BODY


def test_encoded_bodies_are_refused(server: Server, tmp_path: Path) -> None:
    server.serve("/a", Reply(BODY, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(UserError, match="encoding"):
        fetch(server, tmp_path / "a")
    assert server.requests[0][1]["Accept-Encoding"] == "identity"


def test_answers_that_are_no_file_are_no_file(server: Server, tmp_path: Path) -> None:
    unasked = Reply(BODY, status=206, headers={"Content-Range": f"bytes 0-{len(BODY) - 1}/{len(BODY)}"})
    server.serve("/a", [Reply(status=204), unasked, Reply(BODY)])
    assert len(fetch(server, tmp_path / "a")) == 2
    assert (tmp_path / "a").read_bytes() == BODY


def test_a_file_that_lost_its_tail_is_fetched_again(server: Server, tmp_path: Path) -> None:
    server.serve("/a", Reply(BODY))
    fetch(server, tmp_path / "a")
    (tmp_path / "a").write_bytes(BODY[:-1])
    fetch(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY


def test_a_file_put_there_by_hand_is_trusted_only_after_a_check(server: Server, tmp_path: Path) -> None:
    good = parquet_bytes(["by hand"])
    server.serve("/a", Reply(parquet_bytes(["from the server"])))
    for body, requests in [(good, 0), (good[:-1], 1)]:
        (tmp_path / "checked").write_bytes(body)
        fetch(server, tmp_path / "checked", check=check_parquet)
        assert len(server.requests) == requests
    (tmp_path / "unchecked").write_bytes(good)
    fetch(server, tmp_path / "unchecked")
    assert len(server.requests) == 2


def test_a_complete_read_only_folder_will_do(server: Server, tmp_path: Path) -> None:
    server.serve("/a", Reply(BODY))
    fetch(server, tmp_path / "a")
    (tmp_path / ".lock").unlink()
    fetch(server, tmp_path / "a")
    assert not (tmp_path / ".lock").exists()


def test_a_folder_that_cannot_be_made_is_one_clear_line(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write in .*file.*choose another folder"):
        fetch(server, tmp_path / "file" / "a")
    assert not server.requests


def test_a_full_disk_is_one_clear_line_and_not_retried(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: Full() if self.suffix == ".part" else opened(self, *a, **k))
    server.serve("/a", Reply(BODY))
    with pytest.raises(UserError, match=r"cannot write .*No space left.*free space"):
        fetch(server, tmp_path / "a")
    assert len(server.requests) == 1


def test_two_at_once_fetch_once(server: Server, tmp_path: Path) -> None:
    server.serve("/a", Reply(BODY))
    both = [threading.Thread(target=fetch, args=(server, tmp_path / "a")) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert (tmp_path / "a").read_bytes() == BODY
    assert len(server.requests) == 1


def test_one_failure_stops_the_others(server: Server, tmp_path: Path) -> None:
    server.serve("/slow", Reply(BODY, cut=1000, drip=True))
    server.serve("/bad", Reply(status=404))
    items = [Download(f"{server.url}/{name}", tmp_path / name) for name in ("slow", "bad")]
    started = time.monotonic()
    with pytest.raises(UserError, match="bad"):
        fetch_all(items)
    assert time.monotonic() - started < 10  # the slow one would drip for 40 s
    assert not (tmp_path / "slow").exists()


def test_progress_counts_bytes(server: Server, tmp_path: Path) -> None:
    server.serve("/a", [Reply(BODY, cut=1000), Reply(BODY)])
    progress = Progress()
    fetch_all([Download(f"{server.url}/a", tmp_path / "a")], sleep=lambda _: None, progress=progress)
    (task,) = progress.tasks
    assert (task.completed, task.total) == (len(BODY), len(BODY))

"""A download that was cut goes on where it broke, and never mixes two files."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlx_autoresearch.errors import UserError
from tests.support.downloads import BODY, OTHER, fetch
from tests.support.http_server import Reply, Server


def test_a_cut_connection_is_resumed_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.serve("/a", [Reply(BODY, cut=1000), Reply(BODY, cut=500), Reply(BODY)])
    assert len(fetch(server, tmp_path / "a")) == 2
    assert (tmp_path / "a").read_bytes() == BODY
    assert server.ranges() == [None, "bytes=1000-", "bytes=1500-"]
    assert [headers.get("If-Range") for _, headers in server.requests] == [None, '"v1"', '"v1"']


def test_a_line_that_breaks_often_but_advances_is_not_given_up(server: Server, tmp_path: Path) -> None:
    server.serve("/a", Reply(BODY, cut=len(BODY) // 10 + 1))
    fetch(server, tmp_path / "a", attempts=2)
    assert (tmp_path / "a").read_bytes() == BODY


def test_a_later_call_resumes_what_an_earlier_one_left(server: Server, tmp_path: Path) -> None:
    server.serve("/a", [Reply(BODY, cut=1000), Reply(status=500), Reply(BODY)])
    with pytest.raises(UserError, match=r"/a: HTTP 500 .*2 attempts.*run again"):
        fetch(server, tmp_path / "a", attempts=2)
    assert not (tmp_path / "a").exists()
    fetch(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY
    assert server.ranges() == [None, "bytes=1000-", "bytes=1000-"]


def test_a_part_that_waited_only_for_its_check_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    server.serve("/a", [Reply(BODY, cut=1000), Reply(status=500)])
    with pytest.raises(UserError):
        fetch(server, tmp_path / "a", attempts=2)
    (tmp_path / "a.part").write_bytes(BODY)
    fetch(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY
    assert len(server.requests) == 2


def test_a_part_of_another_address_is_not_resumed(server: Server, tmp_path: Path) -> None:
    server.serve("/a", [Reply(BODY, cut=1000), Reply(status=404)])
    server.serve("/b", Reply(OTHER))
    with pytest.raises(UserError):
        fetch(server, tmp_path / "a")
    fetch(server, tmp_path / "a", url="/b")
    assert (tmp_path / "a").read_bytes() == OTHER
    assert server.ranges()[-1] is None


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_server_without_ranges_sends_the_file_anew(server: Server, tmp_path: Path, framing: str) -> None:
    server.serve("/a", [Reply(BODY, cut=1000), Reply(BODY, ranges=False, framing=framing)])
    assert len(fetch(server, tmp_path / "a")) == 1
    assert (tmp_path / "a").read_bytes() == BODY


@pytest.mark.parametrize(
    "changed",
    [
        Reply(OTHER, etag='"v2"'),
        Reply(OTHER, etag='"v2"', if_range=False),
        Reply(OTHER[:2000], etag='"v2"', if_range=False),
        Reply(OTHER[:2000]),  # another length under the same ETag
    ],
)
def test_a_file_that_changed_between_attempts_is_never_mixed(server: Server, tmp_path: Path, changed: Reply) -> None:
    server.serve("/a", [Reply(BODY, cut=1000), changed])
    fetch(server, tmp_path / "a", attempts=4)
    assert (tmp_path / "a").read_bytes() == changed.body


@pytest.mark.parametrize("wrong", [Reply(BODY, start=2000), Reply(BODY, start=500), Reply(BODY, extra=b"!")])
def test_a_range_that_was_not_asked_for_is_thrown_away(server: Server, tmp_path: Path, wrong: Reply) -> None:
    server.serve("/a", [Reply(BODY, cut=1000), wrong, Reply(BODY)])
    fetch(server, tmp_path / "a", attempts=4)
    assert (tmp_path / "a").read_bytes() == BODY
    assert server.ranges() == [None, "bytes=1000-", None]


def test_a_range_needs_no_etag_of_its_own(server: Server, tmp_path: Path) -> None:
    server.serve("/a", [Reply(BODY, cut=1000), Reply(BODY, etag=None, if_range=False)])
    assert len(fetch(server, tmp_path / "a")) == 1
    assert (tmp_path / "a").read_bytes() == BODY


def test_a_file_that_shrank_below_the_part_starts_anew(server: Server, tmp_path: Path) -> None:
    server.serve("/a", [Reply(BODY, cut=1000), Reply(OTHER[:500], if_range=False)])
    fetch(server, tmp_path / "a", attempts=4)
    assert (tmp_path / "a").read_bytes() == OTHER[:500]


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
def test_nothing_is_resumed_on_the_word_of_a_weak_validator(server: Server, tmp_path: Path, etag: str | None) -> None:
    server.serve("/a", [Reply(BODY, cut=1000, etag=etag), Reply(BODY, etag=etag)])
    fetch(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY
    assert server.ranges() == [None, None]


def test_last_modified_serves_where_there_is_no_etag(server: Server, tmp_path: Path) -> None:
    date = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    server.serve(
        "/a", [Reply(BODY, cut=1000, etag=None, headers=date), Reply(BODY, etag=None, headers=date, if_range=False)]
    )
    fetch(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY
    assert server.requests[1][1]["If-Range"] == date["Last-Modified"]


def test_a_resumed_file_whose_announced_checksum_changed_starts_anew(server: Server, tmp_path: Path) -> None:
    first, second = ({"X-Linked-Etag": hashlib.sha256(body).hexdigest()} for body in (BODY, OTHER))
    server.serve("/a", [Reply(BODY, cut=1000, headers=first), Reply(OTHER, headers=second, if_range=False)])
    fetch(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == OTHER


def test_a_chunked_body_resumed_with_a_length_is_held_to_it(server: Server, tmp_path: Path) -> None:
    server.serve("/a", [Reply(BODY, framing="chunked", cut=1000), Reply(BODY, cut=500), Reply(BODY)])
    fetch(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY
    assert server.ranges() == [None, "bytes=1000-", "bytes=1500-"]


def test_a_torn_record_is_no_record(server: Server, tmp_path: Path) -> None:
    server.serve("/a", Reply(BODY))
    (tmp_path / "a.part").write_bytes(OTHER[:1000])
    (tmp_path / "a.json").write_text('{"url": "')
    fetch(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY


def test_ctrl_c_leaves_a_part_that_resumes(server: Server, tmp_path: Path) -> None:
    body = BODY[:3000]  # less than a file buffer holds
    server.serve("/a", Reply(body, cut=1000, drip=True))
    script = (
        "import sys, pathlib; from mlx_autoresearch.data.download import *;"
        "fetch_all([Download(sys.argv[1], pathlib.Path(sys.argv[2]))])"
    )
    arguments = [sys.executable, "-c", script, f"{server.url}/a", str(tmp_path / "a")]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        part = tmp_path / "a.part"
        while process.poll() is None and not (part.exists() and part.stat().st_size):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert "KeyboardInterrupt" in process.stderr.read()
    have = part.stat().st_size
    assert 0 < have < len(body)
    assert not (tmp_path / "a").exists()
    server.serve("/a", Reply(body))
    fetch(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == body
    assert server.ranges() == [None, f"bytes={have}-"]

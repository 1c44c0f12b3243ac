"""Datasets from the hub: presets by their files, others by the `datasets` library."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlx_autoresearch.data.sources import Hub, hub
from mlx_autoresearch.errors import UserError
from tests.support.http_server import Reply, Server
from tests.support.sources import NOWHERE, both, everything, parquet, write


def hub_routes(server: Server, preset: str, revision: str = "main", val_rows: int = 0) -> None:
    """Serve every file of a preset that is asked for, its documents named after it."""
    chosen = hub.PRESETS[preset]
    for number in range(chosen.count):
        name = chosen.pattern.format(number)
        texts = [f"{name} row {row}" for row in range(max(3, val_rows))]
        server.serve(f"/datasets/{chosen.repo}/resolve/{revision}/{name}", Reply(parquet(text=texts)))


class TestHubPresets:
    def test_climbmix_trains_on_the_first_shards_and_validates_on_the_last(
        self, server: Server, tmp_path: Path
    ) -> None:
        for number in (0, 1, 2, 6542):
            name = f"shard_{number:05d}.parquet"
            texts = [f"{name} row {row}" for row in range(3)]
            server.serve(f"/datasets/karpathy/climbmix-400b-shuffle/resolve/main/{name}", Reply(parquet(text=texts)))
        source = Hub(num_shards=3, endpoint=server.url + "/")
        before = source.open(tmp_path).fingerprint
        with pytest.raises(UserError, match="run `mlx-autoresearch prepare`"):
            next(source.open(tmp_path).documents("train"))
        source.fetch(tmp_path)
        assert source.open(tmp_path).fingerprint != before
        train, val = both(source, tmp_path)
        assert train == [f"shard_{n:05d}.parquet row {row}" for n in range(3) for row in range(3)]
        assert val == [f"shard_06542.parquet row {row}" for row in range(3)]
        asked = len(server.requests)
        assert asked == 4
        source.fetch(tmp_path)
        assert len(server.requests) == asked
        assert source.shuffled

    def test_a_shard_that_is_no_parquet_is_refused(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("threading.Event.wait", lambda *_: True)
        name = "/datasets/HuggingFaceFW/fineweb-edu/resolve/main/sample/10BT/000_00000.parquet"
        hub_routes(server, "fineweb-edu")
        server.serve(name, Reply(b"busy, come back later"))
        with pytest.raises(UserError, match=r"000_00000\.parquet.* corrupt"):
            Hub(dataset="fineweb-edu", endpoint=server.url).fetch(tmp_path)

    def test_the_defaults_are_the_reference(self) -> None:
        names = [name for name, _ in Hub().files(NOWHERE)]
        assert names == [f"shard_{n:05d}.parquet" for n in [*range(10), 6542]]
        assert [name for name, _ in Hub(num_shards=6542).files(NOWHERE)].count("shard_06542.parquet") == 1

    def test_tinystories_follows_the_rows_of_its_card(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert hub.PRESETS["tinystories"].val_rows == (10_000, 20_000)
        small = hub.Preset("karpathy/tinystories-gpt4-clean", "t.parquet", 1, 1, shuffled=True, val_rows=(2, 5))
        monkeypatch.setitem(hub.PRESETS, "tinystories", small)
        hub_routes(server, "tinystories", val_rows=9)
        source = Hub(dataset="tinystories", endpoint=server.url)
        source.fetch(tmp_path)
        train, val = both(source, tmp_path)
        assert val == [f"t.parquet row {row}" for row in (2, 3, 4)]
        assert train == [f"t.parquet row {row}" for row in (5, 6, 7, 8)]

    def test_fineweb_edu_is_fetched_from_its_folder(self, server: Server, tmp_path: Path) -> None:
        hub_routes(server, "fineweb-edu", revision="v1%2Fx")
        source = Hub(dataset="fineweb-edu", endpoint=server.url, revision="v1/x")
        source.fetch(tmp_path)
        train, val = both(source, tmp_path)
        assert train == [f"sample/10BT/000_00000.parquet row {row}" for row in range(3)]
        assert val == [f"sample/10BT/013_00000.parquet row {row}" for row in range(3)]
        assert not source.shuffled

    def test_endpoint_and_token_come_from_the_environment(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub_routes(server, "fineweb-edu")
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "secret")
        Hub(dataset="fineweb-edu").fetch(tmp_path)
        assert [headers["Authorization"] for _, headers in server.requests] == ["Bearer secret"] * 2

    def test_no_token_no_credentials(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HF_TOKEN", raising=False)
        hub_routes(server, "fineweb-edu")
        Hub(dataset="fineweb-edu", endpoint=server.url).fetch(tmp_path)
        assert not any("Authorization" in headers for _, headers in server.requests)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for the `datasets` library: `splits` holds rows or the exception to raise, `calls` what was asked."""
    fake = SimpleNamespace(splits={}, calls=[])

    def load_dataset(path: str, name: str | None, **options: Any) -> Iterator[dict[str, Any]]:
        fake.calls.append((path, name, options))
        answer = fake.splits[options["split"]]
        if isinstance(answer, Exception):
            raise answer
        return iter(answer)

    fake.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return fake


class TestHubDatasets:
    def test_one_split_is_fetched_once_and_its_tail_held_out(self, rows: SimpleNamespace, tmp_path: Path) -> None:
        rows.splits["train"] = [{"body": f"row {i}"} for i in range(20)] + [{"body": None}]
        source = Hub(dataset="owner/name", column="body", subset="en", revision="v2", val_fraction=0.1)
        source.fetch(tmp_path)
        source.fetch(tmp_path)
        assert rows.calls == [("owner/name", "en", {"split": "train", "revision": "v2", "streaming": True})]
        assert both(source, tmp_path) == ([f"row {i}" for i in range(18)], ["row 18", "row 19"])
        assert not source.shuffled

    def test_a_validation_split_is_pinned(self, rows: SimpleNamespace, tmp_path: Path) -> None:
        rows.splits = {"train": [{"text": f"t{i}"} for i in range(9)], "test": [{"text": f"v{i}"} for i in range(9)]}
        source = Hub(dataset="owner/name", val_split="test", max_documents=3)
        source.fetch(tmp_path)
        assert both(source, tmp_path) == (["t0", "t1", "t2"], ["v0", "v1", "v2"])

    def test_other_settings_have_other_files(self, rows: SimpleNamespace, tmp_path: Path) -> None:
        rows.splits["train"] = [{"text": f"t{i}"} for i in range(9)]
        for count in (2, 4):
            source = Hub(dataset="owner/name", max_documents=count)
            source.fetch(tmp_path)
            assert len(everything(source, tmp_path)) == count

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (ConnectionError("Couldn't reach it\nat all"), "cannot reach the hub.*owner/name.*check the network"),
            (FileNotFoundError("Dataset 'owner/name' doesn't exist"), "owner/name' is not on the hub.*HF_TOKEN"),
            (ValueError("Bad split: train.\nAvailable splits: ['test']"), r"split train: Bad split: train\.$"),
            (RuntimeError(), "RuntimeError"),
            ([{"body": "x", "id": 1}], r"no column `text` \(it has: body, id\)"),
            ([{"text": ["x"]}], "column `text` holds list, not text"),
        ],
    )
    def test_failures_are_one_clear_line_and_leave_nothing(
        self, rows: SimpleNamespace, tmp_path: Path, answer: Any, message: str
    ) -> None:
        rows.splits["train"] = answer
        source = Hub(dataset="owner/name")
        with pytest.raises(UserError, match=message) as caught:
            source.fetch(tmp_path)
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.rglob("*.parquet"))

    def test_a_stream_that_breaks_leaves_nothing_that_looks_whole(self, rows: SimpleNamespace, tmp_path: Path) -> None:
        def broken() -> Iterator[dict[str, str]]:
            yield from ({"text": str(i)} for i in range(3000))
            raise ConnectionError("reset")

        rows.splits["train"] = broken()
        source = Hub(dataset="owner/name")
        with pytest.raises(UserError, match="cannot reach the hub"):
            source.fetch(tmp_path)
        rows.splits["train"] = [{"text": f"t{i}"} for i in range(5)]
        source.fetch(tmp_path)
        assert everything(source, tmp_path) == [f"t{i}" for i in range(5)]

    @pytest.mark.filterwarnings("default")  # what `datasets` warns of is not ours to mend
    def test_the_real_library_reads_a_local_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        write(tmp_path, {"data/train.jsonl": "".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(10))})
        source = Hub(dataset=str(tmp_path / "data"), max_documents=8, val_fraction=0.25)
        source.fetch(tmp_path / "downloads")
        assert both(source, tmp_path / "downloads") == ([f"row {i}" for i in range(6)], ["row 6", "row 7"])
        with pytest.raises(UserError, match="Bad split"):
            Hub(dataset=str(tmp_path / "data"), split="nosuch").fetch(tmp_path / "downloads")

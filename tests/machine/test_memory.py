"""The limits of a container count, wherever they are set. Layouts as Docker, Kubernetes and systemd make them."""

from __future__ import annotations

import os
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_autoresearch.machine import device, memory
from mlx_autoresearch.machine.memory import container_limit, usable_memory

INSTALLED = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
NO_LIMIT_V1 = "9223372036854771712"


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "1000"}, 1000),  # version 2 in a container of its own namespace
        ("0::/\n", {"memory.max": "max"}, None),
        ("0::/\n", {}, None),  # the root group has no such file
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "500", "memory.max": "max"}, 500),
        ("0::/a/b\n", {"a/b/memory.max": "300", "a/memory.max": "500"}, 300),
        ("0::/../../outside\n", {"memory.max": "700", "outside/memory.max": "1"}, 700),
        ("4:memory:/docker/1\n0::/\n", {"memory/memory.limit_in_bytes": "800"}, 800),  # version 1, mounted from there
        ("4:memory:/a\n", {"memory/memory.limit_in_bytes": NO_LIMIT_V1, "memory/a/memory.limit_in_bytes": "90"}, 90),
        ("4:cpu,memory:/\n", {"memory/memory.limit_in_bytes": "70"}, 70),
        ("4:cpu:/a\n", {"memory/a/memory.limit_in_bytes": "90"}, None),
        ("", {}, None),
    ],
)
def test_the_lowest_limit_of_all_levels_counts(
    tmp_path: Path, groups: str, files: dict[str, str], limit: int | None
) -> None:
    mounts = tmp_path / "cgroup"
    for name, content in files.items():
        (mounts / name).parent.mkdir(parents=True, exist_ok=True)
        (mounts / name).write_text(content + "\n")
    proc = tmp_path / "proc"
    proc.write_text(groups)
    assert container_limit(proc, mounts) == limit


def test_without_control_groups_nothing_is_limited(tmp_path: Path) -> None:
    assert container_limit(tmp_path / "no", tmp_path) is None


@pytest.mark.parametrize(("limit", "usable"), [(10**6, 10**6), (None, INSTALLED), (int(NO_LIMIT_V1), INSTALLED)])
def test_usable_is_what_the_machine_or_the_container_has(
    monkeypatch: pytest.MonkeyPatch, limit: int | None, usable: int
) -> None:
    monkeypatch.setattr(memory, "container_limit", lambda: limit)
    assert usable_memory() == usable
    monkeypatch.setattr(mx, "device_info", dict)
    assert device.memory_limits().total == usable

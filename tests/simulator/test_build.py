from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mlx_autoresearch.simulator.build import Diagnostic, _save


def test_what_a_compiler_said_may_be_kept_by_many_threads_at_once(tmp_path: Path) -> None:
    said = tmp_path / "cache" / "kernel.json"
    diagnostics = [Diagnostic("kernel.metal", i, "error", "message " * 50, "") for i in range(50)]
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(_save, said, diagnostics) for _ in range(200)]:
            future.result()
    assert len(json.loads(said.read_text())) == 50
    assert list(said.parent.iterdir()) == [said], "temporary files are left"

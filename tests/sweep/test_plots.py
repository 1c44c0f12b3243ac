"""The plots of a sweep: which there are, and that the best point is the one shown as such."""

from __future__ import annotations

from tests.support.sweeps import Sweeper, run_sweep


def test_the_page_has_the_plots_and_only_the_best_checkpoints_stay(file: Sweeper, pages: None) -> None:
    space = {"optimizer.matrix_lr": [0.01, 0.04, 0.1], "optimizer.adam_betas": [[0.8, 0.95], [0.9, 0.99]]}
    home = run_sweep(file(space=space)).home
    page = (home / "report.html").read_text()
    for name in ("slices", "parallel", "importance"):
        assert (home / f"{name}.png").stat().st_size > 5000
    assert page.count("data:image/png;base64,") == 3
    assert [p.parts[-3] for p in home.glob("trials/*/*/checkpoint.safetensors")] == ["0002"]


def test_one_result_makes_no_plot(file: Sweeper, pages: None) -> None:
    home = run_sweep(file(space={"optimizer.matrix_lr": [0.04]})).home
    assert (home / "report.html").is_file()
    assert not (home / "slices.png").exists()

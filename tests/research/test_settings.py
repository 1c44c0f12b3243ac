"""Search files: bases, starting points, overrides, and what is wrong with them in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_autoresearch.config.load import check_key, load_config
from mlx_autoresearch.errors import UserError
from mlx_autoresearch.research.proposers.settings import AgentSettings, Dimension, OptunaSettings
from mlx_autoresearch.research.settings import load_search

CONFIGS = Path(__file__).parents[2] / "configs"
EXAMPLES = sorted((CONFIGS / "research").glob("*.yaml"))
SCRIPT = "tag: t\nproposer: {kind: script, steps: [{hypothesis: h, overrides: {model.softcap: null}}]}\n"


def write(folder: Path, text: str, name: str = "night.yaml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def error_of(*arguments) -> str:
    with pytest.raises(UserError) as error:
        load_search(*arguments)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_load_and_what_is_stored_of_them_stands_alone(tmp_path: Path, path: Path):
    search = load_search(path)
    assert load_search(write(tmp_path, search.to_yaml())) == search


def test_the_demo_is_the_overnight_search_in_small():
    demo, overnight = (load_search(CONFIGS / "research" / f"{name}.yaml") for name in ("demo", "overnight"))
    assert (demo.experiments, demo.hours, demo.start.train.time_budget) == (126, None, 10)
    assert demo.proposer == overnight.proposer
    assert demo.start.model == overnight.start.model


def test_the_overnight_start_trains_the_default_model():
    start = load_search(CONFIGS / "research" / "overnight.yaml").start
    assert start.gpt_config() == load_config(CONFIGS / "default.yaml").gpt_config()


def test_overrides_win_over_the_file_and_reach_the_start(tmp_path: Path):
    path = write(tmp_path, SCRIPT + "experiments: 3\n")
    search = load_search(path, ["experiments=5", "start.train.max_steps=7", "decision.greedy=true"])
    assert search.experiments == 5
    assert search.start.train.max_steps == 7
    assert search.decision.greedy


def test_another_start_can_be_named_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "configs").mkdir()
    path = write(tmp_path / "configs", SCRIPT)
    write(tmp_path, "train: {max_steps: 9}\n", "other.yaml")
    monkeypatch.chdir(tmp_path)
    assert load_search(path, ["start=other.yaml"]).start.train.max_steps == 9
    assert load_search(path, ["start.config=other.yaml", "start.train.max_steps=5"]).start.train.max_steps == 5


def test_paths_are_relative_to_the_file_that_names_them(tmp_path: Path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    write(tmp_path, "train: {max_steps: 9}\nmodel: {depth: 3}\n", "start.yaml")
    write(tmp_path / "a", SCRIPT + "start: ../start.yaml\n", "base.yaml")
    path = write(tmp_path / "a" / "b", "base: ../base.yaml\ntag: other\nstart: {model: {depth: 2}}\n")
    search = load_search(path)
    assert search.tag == "other"
    assert search.start.train.max_steps == 9
    assert search.start.model.depth == 2


def test_a_start_with_a_configuration_of_its_own_replaces_the_one_below(tmp_path: Path):
    """What the base says of its own configuration would otherwise be laid over another one, unseen."""
    write(tmp_path, "model: {depth: 3}\n", "winner.yaml")
    write(tmp_path, SCRIPT + "start: {model: {depth: 4}, train: {max_steps: 9}}\n", "base.yaml")
    path = write(tmp_path, "base: base.yaml\nstart: {config: winner.yaml, train: {time_budget: 60}}\n")
    start = load_search(path).start
    assert (start.model.depth, start.train.max_steps, start.train.time_budget) == (3, None, 60)


def test_a_patch_file_becomes_part_of_the_settings(tmp_path: Path):
    write(tmp_path, "--- a\n+++ b\n", "one.patch")
    path = write(tmp_path, "tag: t\nproposer: {kind: script, steps: [{hypothesis: h, patch_file: one.patch}]}\n")
    assert load_search(path).proposer.steps[0].patch == "--- a\n+++ b\n"  # type: ignore[union-attr]


def test_another_proposer_takes_the_place_of_the_whole_one_below(tmp_path: Path):
    write(tmp_path, SCRIPT, "base.yaml")
    path = write(tmp_path, "base: base.yaml\nproposer: {kind: agent, preset: codex}\n")
    assert isinstance(load_search(path).proposer, AgentSettings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tag: t\n", "proposer is missing"),
        ("tag: T/x\nproposer: {kind: agent, preset: claude}\n", "tag"),
        ("tag: t\nproposer: {kind: agent}\n", "either a preset"),
        ("tag: t\nproposer: {kind: agent, preset: hal}\n", "claude"),
        ("tag: t\nproposer: {kind: oracle}\n", "proposer.kind must be one of search, script, agent"),
        ("tag: t\nproposer: {kind: script, steps: []}\n", "steps"),
        ("tag: t\nproposer: {kind: script, steps: [{hypothesis: h}]}\n", "overrides, a patch"),
        ("tag: t\nproposer: {space: {model.depht: {choices: [1, 2]}}}\n", "did you mean model.depth?"),
        ("tag: t\nproposer: {space: {model.depth: {choices: [two, 3]}}}\n", "model.depth must be"),
        ("tag: t\nproposer: {space: {model.depth: {choices: [2]}}}\n", "choices"),
        ("tag: t\nproposer: {space: {model.depth: {low: 3}}}\n", "low and high"),
        ("tag: t\nproposer: {space: {optimizer.matrix_lr: {low: 0, high: 1, log: true}}}\n", "above 0"),
        ("tag: t\nproposer: {kind: script, steps: 5}\n", "steps"),
        (SCRIPT + "start: {config: 5}\n", "start.config must be the path"),
        (SCRIPT + "experimnts: 3\n", "did you mean experiments?"),
        (SCRIPT + "experiments: many\n", "experiments must be"),
        (SCRIPT + "start: {model: {depth: 0}}\n", "model.depth must be"),
        (SCRIPT + "start: nowhere.yaml\n", "no configuration file"),
        (SCRIPT + "base: nowhere.yaml\n", "no search file"),
        (SCRIPT + "base: night.yaml\n", "its own base"),
        (SCRIPT + "seeds: {baseline: 1}\n", "seeds.baseline"),
        ("- 1\n", "must be a mapping"),
        ("tag: [\n", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, said: str):
    assert said in error_of(write(tmp_path, text))


@pytest.mark.parametrize("override", ["experiments", "=3", "experiments: 3", "experiments=[", "experiments=0"])
def test_a_wrong_override_is_said_in_one_line(tmp_path: Path, override: str):
    assert "experiments" in error_of(write(tmp_path, SCRIPT), [override]) or override == "=3"


def test_a_missing_file_is_said_in_one_line(tmp_path: Path):
    assert "no search file" in error_of(tmp_path / "none.yaml")


def test_windows_of_seeds_do_not_overlap(tmp_path: Path):
    seeds = load_search(write(tmp_path, SCRIPT)).seeds
    drawn = [seed for window in range(50) for seed in seeds.window(window)]
    assert drawn[:4] == [42, 43, 44, 45]
    assert len(set(drawn)) == len(drawn)


def test_a_range_is_a_grid_with_its_ends():
    assert Dimension(low=0.01, high=0.16, log=True, points=5).values == [0.01, 0.02, 0.04, 0.08, 0.16]
    assert Dimension(low=0.0, high=1.0, points=3).values == [0.0, 0.5, 1.0]
    assert Dimension(choices=[None, 1]).ordered is False
    assert Dimension(choices=[True, False]).ordered is False
    assert Dimension(choices=[1, 2.5]).ordered is True


def test_every_value_of_the_overnight_space_is_one_a_configuration_takes():
    search = load_search(CONFIGS / "research" / "overnight.yaml").proposer
    assert isinstance(search, OptunaSettings)
    for key, dimension in search.space.items():
        for value in dimension.values:
            check_key(key, value)


@pytest.mark.parametrize("start", ["{trian: {}}", "{train: {max_steps: {}}}", "{kernels: {}}"])
def test_an_empty_mapping_in_start_is_checked_as_any_value(tmp_path: Path, start: str) -> None:
    steps = "[{hypothesis: smaller, overrides: {optimizer.matrix_lr: 0.01}}]"
    (tmp_path / "c.yaml").write_text("{}")
    start = start.replace("{", "{config: c.yaml, ", 1)
    (tmp_path / "s.yaml").write_text(f"tag: night\nstart: {start}\nproposer: {{kind: script, steps: {steps}}}\n")
    with pytest.raises(UserError, match=r"s\.yaml: start: "):
        load_search(tmp_path / "s.yaml")


@pytest.mark.parametrize("choices, said", [([1, True], "both 1 and true"), ([0.5, 1, 0.5], "the value 0.5 twice")])
def test_values_that_count_as_one_are_refused(choices: list, said: str) -> None:
    """The second used to be tried as the first."""
    with pytest.raises(ValueError, match=f"choices has {said}"):
        Dimension(choices=choices)

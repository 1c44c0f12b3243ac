"""Defaults <- YAML <- key=value: what the layers give, and which combinations are refused."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from mlx_autoresearch.config.load import load_config, split_settings
from mlx_autoresearch.config.settings import Config, DataConfig, ModelConfig
from mlx_autoresearch.data.sources import Hub, Stdlib, Text
from mlx_autoresearch.errors import UserError

GARBAGE = "{}[]:,-#&*!|>'\"%@`\t\n 0e.~ab\x00\u2028"
CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def write(folder: Path, text: str) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def error_of(*arguments, **keywords) -> str:
    with pytest.raises(UserError) as error:
        load_config(*arguments, **keywords)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_nothing_given_gives_the_defaults():
    assert load_config() == Config()


def test_each_layer_wins_over_the_one_below(tmp_path: Path):
    path = write(tmp_path, "train: {seed: 1, time_budget: 5}\nmodel: {softcap: null}\n")
    config = load_config(path, ["train.seed=2", "train.seed=3", "model.window_pattern=[64, L]"])
    assert config.train.seed == 3
    assert config.train.time_budget == 5
    assert config.train.max_steps is None
    assert config.model.softcap is None
    assert config.model.window_pattern == [64, "L"]
    assert config.model.depth == Config().model.depth


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n", "{}", "\ufefftrain: {}\n"])
def test_an_empty_file_gives_the_defaults(tmp_path: Path, text: str):
    assert load_config(write(tmp_path, text)) == Config()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_what_is_printed_loads_back_to_the_same(tmp_path: Path, path: Path):
    config = load_config(path)
    assert load_config(write(tmp_path, config.to_yaml())) == config


@pytest.mark.parametrize(
    "settings",
    [
        ["data.source=text", "data.source.paths=['~/ä ö/*.txt', \"a: #b\", '1', 'no']", "data.source.doc_bytes=null"],
        ["data.source=hub", "data.source.dataset=owner/name", "data.source.revision='1e5'"],
        ["optimizer.adam_betas=[0, 0.999]", "optimizer.matrix_lr=1e-5", "train.time_budget=1e300"],
        ["model.n_embd=96", "model.n_head=3", "model.window_pattern=[0, s, 100]", "model.embedding_norm=false"],
    ],
)
def test_awkward_values_load_back_too(tmp_path: Path, settings: list[str]):
    config = load_config(None, settings)
    assert load_config(write(tmp_path, config.to_yaml())) == config


def test_the_resolved_shape_is_printed_as_a_comment():
    first = load_config(None, ["model.depth=6", "train.total_batch_size=32768"]).to_yaml().splitlines()[0]
    assert first == "# derived: n_layer 6, n_embd 384, n_head 3, n_kv_head 3, head_dim 128; 4 micro-batches per step"


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 8, 12, 20])
@pytest.mark.parametrize(("aspect_ratio", "head_dim"), [(64, 128), (50, 64), (64, 64), (48, 96)])
def test_depth_gives_the_references_shape(depth: int, aspect_ratio: int, head_dim: int):
    """depth * ASPECT_RATIO is rounded up to a multiple of HEAD_DIM, and num_heads = model_dim // HEAD_DIM."""
    shape = ModelConfig(depth=depth, aspect_ratio=aspect_ratio, head_dim=head_dim).gpt_config(vocab_size=8192)
    model_dim = math.ceil(depth * aspect_ratio / head_dim) * head_dim
    assert (shape.n_layer, shape.n_embd, shape.n_head, shape.n_kv_head, shape.vocab_size) == (
        depth,
        model_dim,
        model_dim // head_dim,
        model_dim // head_dim,
        8192,
    )
    assert shape.head_dim == head_dim


def test_a_given_width_or_number_of_heads_wins_over_depth():
    shape = ModelConfig(depth=4, n_layer=2, n_embd=512).gpt_config(257)
    assert (shape.n_layer, shape.n_embd, shape.n_head, shape.head_dim) == (2, 512, 4, 128)
    shape = ModelConfig(depth=4, n_head=4, n_kv_head=1).gpt_config(257)
    assert (shape.n_embd, shape.n_head, shape.n_kv_head, shape.head_dim) == (256, 4, 1, 64)


def test_accumulation_steps():
    config = load_config(None, ["model.sequence_len=64", "train.device_batch_size=2", "train.total_batch_size=1024"])
    assert config.accumulation_steps == 8


@pytest.mark.parametrize(
    "settings",
    [
        ["data.source=text", "data.source.paths=[a]"],
        ["data.source.paths=[a]", "data.source=text"],
        ["data.source.kind=text", "data.source.paths=[a]"],
        ["data.source={kind: text, paths: [a]}"],
        ["data={source: {kind: text}}", "data.source.paths=[a]"],
    ],
)
@pytest.mark.parametrize("yaml", ["", "data: {source: {kind: hub, num_shards: 3}}", "data: {source: {doc_bytes: 99}}"])
def test_a_source_of_another_kind_replaces_the_files(tmp_path: Path, yaml: str, settings: list[str]):
    """The file's other fields would not fit it, and whoever names a kind has said what they want."""
    assert load_config(write(tmp_path, yaml), settings).data.source == Text(paths=["a"])


@pytest.mark.parametrize(
    ("yaml", "settings", "source"),
    [
        ("source: {kind: hub, num_shards: 3}", ["data.source.num_shards=4"], Hub(num_shards=4)),
        ("source: {kind: hub, num_shards: 3}", ["data.source=hub"], Hub(num_shards=3)),
        ("source: text", ["data.source.paths=[a]"], Text(paths=["a"])),
        ("source: hub", [], Hub()),
        ("vocab_size: 300", ["data.source.doc_bytes=99"], Stdlib(doc_bytes=99)),
        ("source: {doc_bytes: 99}", ["data.source.val_fraction=0.5"], Stdlib(doc_bytes=99, val_fraction=0.5)),
    ],
)
def test_a_source_of_the_same_kind_keeps_the_files_fields(tmp_path: Path, yaml: str, settings: list[str], source):
    assert load_config(write(tmp_path, f"data: {{{yaml}}}"), settings).data.source == source


def test_a_source_may_be_given_as_an_object():
    assert DataConfig(source=Text(paths=["a"])).source == Text(paths=["a"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.device_batch_size=3"], "train.total_batch_size must be a multiple of train.device_batch_size * "),
        (["model.sequence_len=1024"], "train.total_batch_size must be a multiple of train.device_batch_size * "),
        (["model.n_kv_head=3"], "model.n_kv_head must divide n_head=2, got 3"),
        (["model.n_head=3"], "model.n_embd must be divisible by n_head=3, got 256"),
        (["model.n_embd=200"], "model.n_embd must be a multiple of head_dim=128 where n_head is not given, got 200"),
        (["model.n_embd=12", "model.n_head=4"], "model.head_dim = n_embd / n_head must be even for RoPE, got 3"),
        (["model.window_pattern=[513]"], "model.window_pattern takes windows from 0 to sequence_len=512, got 513"),
        (["model.window_pattern=XYZ"], "model.window_pattern takes S, L or a number of keys, got 'X'"),
        (["model.window_pattern="], "model.window_pattern must be letters S and L, or a list"),
        (["train.warmup_ratio=0.6"], "train.warmup_ratio + warmdown_ratio must not exceed 1, got 0.6 + 0.5"),
        (["evaluate.eval_tokens=511"], "evaluate.eval_tokens must be at least one row of sequence_len=512, got 511"),
    ],
)
def test_rules_between_fields(settings: list[str], message: str):
    assert error_of(None, settings).startswith(message)


def test_a_time_budget_that_max_steps_would_overrule_is_refused(tmp_path: Path):
    path = write(tmp_path, "train: {max_steps: 8, time_budget: 60}")
    assert load_config(path).train.max_steps == 8
    assert error_of(path, ["train.time_budget=5"]).startswith(
        "train.time_budget has no effect while train.max_steps is 8"
    )
    assert load_config(path, ["train.time_budget=5", "train.max_steps=null"]).train.time_budget == 5


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("=5", "cannot read '=5': a setting is written section.key=value"),
        ("train.=5", "cannot read 'train.=5'"),
        (".seed=5", "cannot read '.seed=5'"),
        ("train seed=5", "cannot read 'train seed=5'"),
        ("train.time_budget", "cannot read 'train.time_budget'"),
        ("--seed=5", "cannot read '--seed=5'"),
        ("train.seed=[1", "cannot read 'train.seed=[1': the value is not valid YAML, line 1, column 3: expected"),
        ("train.seed={a: 1, a: 2}", "cannot read 'train.seed={a: 1, a: 2}': the value is not valid YAML, line 1"),
        ("train.seed.x=5", 'train.seed must be an integer, got {"x": 5}'),
        ("train=5", "train must be a section with keys such as seed, got 5"),
        ("trian.seed=5", "unknown key trian; did you mean train?"),
        ("train.sed=5", "unknown key train.sed; did you mean train.seed?"),
        ("data.source.paths=[a]", "unknown key data.source.paths; it belongs to data.source.kind=text"),
    ],
)
def test_bad_settings(setting: str, message: str):
    assert error_of(None, [setting]).startswith(message)


def test_an_error_names_the_file_only_where_the_file_is_to_blame(tmp_path: Path):
    path = write(tmp_path, "train: {seed: 1}")
    assert error_of(path, ["train.seed=x"]).startswith("train.seed must")
    assert error_of(path, ["train.sed=1"]).startswith("unknown key train.sed")
    path = write(tmp_path, "train: {seed: x}")
    assert error_of(path, ["train.max_steps=1"]).startswith(f"{path}: train.seed must")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "- a\n- b",
            "must be a mapping of sections (data, model, optimizer, train, evaluate, kernels, recipe), got ['a', 'b']",
        ),
        ("5", "must be a mapping of sections (data, model, optimizer, train, evaluate, kernels, recipe), got 5"),
        ("train:\n\tseed: 1", "is not valid YAML: line 2, column 1: found character"),
        ("train: {seed: 1}\ntrain: {seed: 2}", "is not valid YAML: line 2, column 1: the key train is given twice"),
    ],
)
def test_files_that_hold_no_sections(tmp_path: Path, text: str, message: str):
    path = write(tmp_path, text)
    assert error_of(path).startswith(f"{path} {message}")


def test_files_that_cannot_be_read(tmp_path: Path):
    (tmp_path / "tiny.yaml").touch()
    (tmp_path / "latin.yaml").write_bytes(b"# \xe9\n")
    (tmp_path / "folder.yaml").mkdir()
    missing = tmp_path / "tinny.yaml"
    assert error_of(missing) == f"no configuration file {missing}; did you mean {tmp_path / 'tiny.yaml'}?"
    assert error_of(tmp_path / "no" / "x.yaml").endswith("x.yaml; the examples are in configs/")
    assert error_of("train.seed") == "no configuration file train.seed; a setting is written section.key=value"
    assert error_of(tmp_path / "latin.yaml") == f"{tmp_path / 'latin.yaml'} is not UTF-8 text"
    assert error_of(tmp_path / "folder.yaml").endswith("folder.yaml: Is a directory")
    assert error_of(tmp_path / ("x" * 300 + ".yaml")).endswith("File name too long")


@pytest.mark.parametrize(
    ("arguments", "path", "overrides"),
    [
        ([], None, []),
        (["a.yaml"], "a.yaml", []),
        (["a.b=1", "a.yaml", "c.d=2"], "a.yaml", ["a.b=1", "c.d=2"]),
        (["a.b=x/y=z", "runs/lr=1/a.yaml"], "runs/lr=1/a.yaml", ["a.b=x/y=z"]),
        (["./lr=1.yaml"], "./lr=1.yaml", []),
        (["train.seed"], "train.seed", []),
    ],
)
def test_split_settings(arguments, path, overrides):
    assert split_settings(arguments) == (path, overrides)


def test_two_files_are_refused():
    with pytest.raises(UserError, match=r"expected one YAML file, .* got the files a.yaml, b.yaml"):
        split_settings(["a.yaml", "train.seed=1", "b.yaml"])


def test_any_garbled_file_gives_a_configuration_or_one_line(tmp_path: Path):
    rng = random.Random(0)
    text = (CONFIGS[0].parent / "tiny.yaml").read_text()
    refused = 0
    for _ in range(400):
        garbled = list(text)
        for _ in range(rng.randint(1, 4)):
            i = rng.randrange(len(garbled))
            garbled[i : i + rng.randint(0, 3)] = rng.choices(
                "{}[]:,-#&*!|>'\"%@`\t\n 0e.~ab\x00\u2028", k=rng.randint(0, 3)
            )
        path = write(tmp_path, "".join(garbled))
        try:
            load_config(path)
        except UserError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1, garbled
    assert 100 < refused < 400


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("recipe.x=0x" + "f" * 5000, "too many digits"),
        ("train.seed=0x" + "f" * 5000, "too many digits"),
        ('recipe.x="\\ud800"', "neither text nor a number"),
        ('kernels="\\ud800"', "neither text nor a number"),
        ("recipe.x=" + "[" * 300 + "]" * 300, "nested too deeply"),
    ],
)
def test_a_value_that_json_cannot_hold_is_named_for_what_it_is(override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_config(None, [override])

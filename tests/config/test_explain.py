"""Every way to write a wrong value ends in one line: which field, what was expected, what came."""

import pytest

from mlx_autoresearch.config.load import validate_config
from mlx_autoresearch.config.yaml_text import parse_yaml
from mlx_autoresearch.errors import UserError

SOURCES = "stdlib, text, hub, gutenberg"
NAN, INFINITY = "optimizer: {matrix_lr: .nan}", "optimizer: {matrix_lr: -.inf}"


def problem(text: str) -> str:
    with pytest.raises(UserError) as error:
        validate_config(parse_yaml(text), "x.yaml")
    line = str(error.value)
    assert "\n" not in line
    assert line.startswith("x.yaml: ")
    return line.removeprefix("x.yaml: ")


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("{modle: {depth: 3}}", "modle", "did you mean model?"),
        ("{train: {max_stepz: 3}}", "train.max_stepz", "did you mean train.max_steps?"),
        ("{seed: 3}", "seed", "did you mean train.seed?"),
        ("{train: {n_head: 3}}", "train.n_head", "did you mean model.n_head?"),
        (
            "{train: {sequence_len: 3}}",
            "train.sequence_len",
            "did you mean model.sequence_len or evaluate.sequence_len?",
        ),
        ("{model: {embedding_lr: 3}}", "model.embedding_lr", "did you mean optimizer.embedding_lr?"),
        ("{model: {matrix_lrr: 3}}", "model.matrix_lrr", "did you mean optimizer.matrix_lr?"),
        (
            "{train: {lr: 3}}",
            "train.lr",
            "did you mean optimizer.unembedding_lr or optimizer.embedding_lr or optimizer.matrix_lr or "
            "optimizer.scalar_lr or train.final_lr_frac?",
        ),
        ("{qqq: 3}", "qqq", "valid keys: data, model, optimizer, train, evaluate, kernels, recipe"),
        ("{evaluate: {qqq: 3}}", "evaluate.qqq", "valid keys: eval_tokens, sequence_len"),
        ("{data: {sourc: text}}", "data.sourc", "did you mean data.source?"),
        ("{data: {source: {kind: text, path: [x]}}}", "data.source.path", "did you mean data.source.paths?"),
        (
            "{data: {source: {kind: stdlib, doc_byte: 9}}}",
            "data.source.doc_byte",
            "did you mean data.source.doc_bytes?",
        ),
        ("{data: {source: {kind: hub, subst: x}}}", "data.source.subst", "did you mean data.source.subset?"),
        ("{data: {source: {kind: gutenberg, book: [1]}}}", "data.source.book", "did you mean data.source.books?"),
        ("{data: {source: {paths: [x]}}}", "data.source.paths", "it belongs to data.source.kind=text"),
        (
            "{data: {source: {kind: text, paths: [x], split: x}}}",
            "data.source.split",
            "it belongs to data.source.kind=hub",
        ),
        ("{train: {seed: x, seedd: 3}}", "train.seedd", "did you mean train.seed?"),
    ],
)
def test_an_unknown_key_names_its_nearest_neighbour(text, key, hint):
    assert problem(text) == f"unknown key {key}; {hint}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: 5", "train must be a section with keys such as seed, got 5"),
        ("train: [1]", "train must be a section with keys such as seed, got [1]"),
        ("model: null", "model must be a section with keys such as depth, got null"),
        ("train: {max_steps: 2.5}", "train.max_steps must be an integer, got 2.5"),
        ("train: {max_steps: true}", "train.max_steps must be an integer, got true"),
        ("train: {max_steps: '5'}", 'train.max_steps must be an integer, got "5"'),
        ("train: {max_steps: -1}", "train.max_steps must be greater than or equal to 1, got -1"),
        ("train: {time_budget: abc}", 'train.time_budget must be a valid number, got "abc"'),
        ("train: {time_budget: 0}", "train.time_budget must be greater than 0, got 0"),
        ("train: {time_budget: }", "train.time_budget must be a valid number, got null"),
        (
            "train: {seed: 9223372036854775808}",
            "train.seed must be less than 9223372036854775808, got 9223372036854775808",
        ),
        ("train: {seed: 2024-01-01}", 'train.seed must be an integer, got "2024-01-01"'),
        ("train: {seed: {a: 1}}", 'train.seed must be an integer, got {"a": 1}'),
        (f"train: {{seed: {'x' * 100}}}", f'train.seed must be an integer, got "{"x" * 56}...'),
        (r'train: {seed: "a\nb"}', r'train.seed must be an integer, got "a\nb"'),
        (NAN, "optimizer.matrix_lr must be a finite number, got NaN"),
        (INFINITY, "optimizer.matrix_lr must be a finite number, got -Infinity"),
        ("optimizer: {adam_betas: 0.9}", "optimizer.adam_betas must be a list, got 0.9"),
        ("optimizer: {adam_betas: [0.9]}", "optimizer.adam_betas[1] is missing"),
        ("optimizer: {adam_betas: [0.9, 1]}", "optimizer.adam_betas[1] must be less than 1, got 1"),
        ("train: {muon_momentum: [-0.1, 1]}", "train.muon_momentum[0] must be greater than or equal to 0, got -0.1"),
        ("model: {embedding_norm: 1}", "model.embedding_norm must be a valid boolean, got 1"),
        ("model: {n_head: 3, n_embd: 256}", "model.n_embd must be divisible by n_head=3, got 256"),
        ("data: {source: 5}", f"data.source must be one of {SOURCES}, or a section with its kind and keys, got 5"),
        ("data: {source: {kind: foo}}", f'data.source.kind must be one of {SOURCES}, got "foo"'),
        ("data: {source: foo}", f'data.source.kind must be one of {SOURCES}, got "foo"'),
        ("data: {source: text}", "data.source.paths is missing: files, folders (searched to the bottom) and globs"),
        ("data: {source: {kind: text, paths: x}}", 'data.source.paths must be a list, got "x"'),
        ("data: {source: {kind: text, paths: [1]}}", "data.source.paths[0] must be a valid string, got 1"),
        ("data: {source: {kind: text, paths: []}}", "data.source.paths: list should have at least 1 item"),
        ("data: {source: {kind: hub, num_shards: 9999}}", "data.source.num_shards is at most 6542 for climbmix"),
        ("data: {source: {kind: hub, dataset: x}}", "data.source.dataset: no preset 'x'"),
    ],
)
def test_a_wrong_value_says_which_field_what_was_expected_and_what_came(text, expected):
    assert problem(text).startswith(expected)


def test_a_value_that_contains_itself_is_refused():
    pattern = []
    pattern.append(pattern)
    with pytest.raises(UserError, match="a value must not contain itself"):
        validate_config({"model": {"window_pattern": pattern}}, "x.yaml")

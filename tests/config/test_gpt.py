"""GPTConfig: what it derives, and that a shape which no GPT can have is refused by name."""

import json

import pytest

from mlx_autoresearch.config.gpt import GPTConfig

PATTERN = "letters S and L, or a list of them and of numbers of keys"


@pytest.mark.parametrize(
    ("pattern", "n_layer", "windows"),
    [
        ("SSSL", 8, [32, 32, 32, 64, 32, 32, 32, 64]),
        ("SSSL", 3, [32, 32, 64]),
        ("S", 1, [64]),
        ("sl", 4, [32, 64, 32, 64]),
        ([7, "L"], 5, [7, 64, 7, 64, 64]),
        ([0, 64, "s"], 4, [0, 64, 32, 64]),
        ("SSSSSSSS", 2, [32, 64]),
    ],
)
def test_windows_repeat_over_the_layers_and_the_last_sees_everything(pattern, n_layer, windows):
    assert GPTConfig(sequence_len=64, n_layer=n_layer, window_pattern=pattern).window_sizes == windows


def test_half_a_window_is_rounded_down():
    assert GPTConfig(sequence_len=7, n_layer=2, window_pattern="S").window_sizes == [3, 7]


@pytest.mark.parametrize(
    ("n_layer", "layers"), [(1, [0]), (2, [1]), (5, [0, 2, 4]), (8, [1, 3, 5, 7])], ids="n_layer={}".format
)
def test_every_other_layer_has_a_value_embedding_and_the_last_always(n_layer, layers):
    config = GPTConfig(n_layer=n_layer)
    assert [i for i in range(n_layer) if config.has_value_embedding(i)] == layers
    assert not any(GPTConfig(n_layer=n_layer, value_embeds=False).has_value_embedding(i) for i in range(n_layer))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_layer": 0}, "n_layer must be a positive integer, got 0"),
        ({"n_layer": True}, "n_layer must be a positive integer, got True"),
        ({"n_embd": 768.0}, "n_embd must be a positive integer, got 768.0"),
        ({"vocab_size": -1}, "vocab_size must be a positive integer, got -1"),
        ({"sequence_len": "512"}, "sequence_len must be a positive integer, got '512'"),
        ({"n_head": 5, "n_kv_head": 5}, "n_embd must be divisible by n_head=5, got 768"),
        ({"n_head": 256, "n_kv_head": 1}, "head_dim = n_embd / n_head must be even for RoPE, got 3"),
        ({"n_kv_head": 4}, "n_kv_head must divide n_head=6, got 4"),
        ({"n_kv_head": 12}, "n_kv_head must divide n_head=6, got 12"),
        ({"mlp": "relu"}, "mlp must be relu2, swiglu or gelu, got 'relu'"),
        ({"softcap": 0}, "softcap must be positive or null, got 0"),
        ({"softcap": float("nan")}, "softcap must be positive or null, got nan"),
        ({"softcap": float("inf")}, "softcap must be positive or null, got inf"),
        ({"softcap": "15"}, "softcap must be positive or null, got '15'"),
        (
            {"window_pattern": ""},
            "window_pattern must be letters S and L, or a list of them and of numbers of keys, got ''",
        ),
        (
            {"window_pattern": 64},
            "window_pattern must be letters S and L, or a list of them and of numbers of keys, got 64",
        ),
        ({"window_pattern": "SXL"}, "window_pattern takes S, L or a number of keys, got 'X'"),
        ({"window_pattern": ["SL"]}, "window_pattern takes S, L or a number of keys, got 'SL'"),
        ({"window_pattern": [True]}, "window_pattern takes S, L or a number of keys, got True"),
        ({"window_pattern": [2049]}, "window_pattern takes windows from 0 to sequence_len=2048, got 2049"),
        ({"window_pattern": [-1]}, "window_pattern takes windows from 0 to sequence_len=2048, got -1"),
    ],
)
def test_an_impossible_shape_is_refused(fields, message):
    with pytest.raises(ValueError) as error:
        GPTConfig(**fields)
    assert str(error.value) == f"[GPTConfig] {message}"


def test_survives_json():
    config = GPTConfig(window_pattern=["S", 100], softcap=None)
    assert GPTConfig(**json.loads(json.dumps(config.to_dict()))) == config

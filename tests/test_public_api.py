"""What a notebook relies on: names at the top, a GPT that is an ordinary module, an optimizer for any module."""

import ast
import copy
import math
from functools import partial
from pathlib import Path
from types import ModuleType

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

import mlx_autoresearch
from mlx_autoresearch import GPT, AdamWGroup, GPTConfig, MuonAdamW, MuonGroup
from tests.support.arrays import normal, relative_error
from tests.support.rounding import check_within, rounding

CONFIG = GPTConfig(sequence_len=16, vocab_size=37, n_layer=2, n_head=2, n_kv_head=1, n_embd=16)
GROUPS = [AdamWGroup(("a.bias", "b.bias"), lr=0.02), MuonGroup(("a.weight", "b.weight"), lr=0.1, ns_steps=2)]


class TwoLayers(nn.Module):
    """Anybody's module: two matrices of one shape, two biases."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def loss(self, x: mx.array, y: mx.array) -> mx.array:
        return mx.square(self.b(mx.tanh(self.a(x))) - y).mean()


def make_gpt(seed: int = 0, **options) -> GPT:
    mx.random.seed(seed)
    return GPT(CONFIG, **options)


def make_two_layers() -> TwoLayers:
    mx.random.seed(0)
    return TwoLayers()


def token_batch(seed: int = 0) -> tuple[mx.array, mx.array]:
    """Inputs and targets, both (4, 16)."""
    rows = np.random.default_rng(seed).integers(0, CONFIG.vocab_size, (4, CONFIG.sequence_len + 1))
    return mx.array(rows[:, :-1]), mx.array(rows[:, 1:])


def regression_batch() -> tuple[mx.array, mx.array]:
    """Inputs and targets of `TwoLayers`, both (32, 8)."""
    x = normal((32, 8), 1)
    return x, mx.sin(x @ normal((8, 8), 2, 0.3))


def flat(tree) -> dict[str, mx.array]:
    return dict(tree_flatten(tree))


def values(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: np.array(p) for name, p in flat(model.parameters()).items()}


def gradients(model: GPT) -> dict:
    return nn.value_and_grad(model, model.loss)(*token_batch())[1]


def train(model, optimizer: MuonAdamW, x: mx.array, y: mx.array, steps: int, compiled: bool = False) -> list[float]:
    """The loop that a notebook has; the learning rate falls, so that a compiled step must not keep its first one."""
    state = [model.state, optimizer.state]
    loss_and_grad = nn.value_and_grad(model, model.loss)

    def step(x: mx.array, y: mx.array) -> mx.array:
        loss, grads = loss_and_grad(x, y)
        optimizer.update(model, grads)
        return loss

    if compiled:
        step = partial(mx.compile, inputs=state, outputs=state)(step)
    losses = []
    for i in range(steps):
        losses.append(step(x, y).item())
        optimizer.set_schedule(lr_multiplier=1 - i / steps, momentum=0.9, weight_decay_multiplier=1 - i / steps)
    return losses


def test_every_public_name_is_listed_once_and_is_no_module():
    namespace: dict = {}
    exec("from mlx_autoresearch import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(mlx_autoresearch._EXPORTS)
    assert not [name for name in mlx_autoresearch._EXPORTS if isinstance(namespace[name], ModuleType)]
    listed = dir(mlx_autoresearch)
    assert set(mlx_autoresearch._EXPORTS) < set(listed)
    assert len(listed) == len(set(listed))


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(str(mlx_autoresearch.__file__)).read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: node.module for node in imports for alias in node.names if alias.asname == alias.name}
    assert seen == {name: f"mlx_autoresearch.{home}" for name, home in mlx_autoresearch._EXPORTS.items()}


def test_gpt_is_an_mlx_module_and_maps_ids_to_logits():
    model = make_gpt()
    logits = model(token_batch()[0])
    assert isinstance(model, nn.Module)
    assert (logits.shape, logits.dtype) == ((4, 16, 37), mx.float32)
    assert sum(p.size for p in flat(model.parameters()).values()) == model.parameter_counts()["total"]


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_weights_survive_a_round_trip(tmp_path: Path, suffix: str):
    model, other = make_gpt(0), make_gpt(1)
    file = str(tmp_path / f"weights.{suffix}")
    model.save_weights(file)
    other.load_weights(file)
    expected, loaded = values(model), values(other)
    assert {name for name in loaded if name.startswith("value_embeds")} == {"value_embeds.1.weight"}
    assert loaded.keys() == expected.keys()
    assert all(np.array_equal(loaded[name], expected[name]) for name in expected)
    assert mx.array_equal(other(token_batch()[0]), model(token_batch()[0]))


def test_weights_that_lack_a_parameter_are_refused():
    model = make_gpt()
    weights = [(name, p) for name, p in flat(model.parameters()).items() if not name.startswith("value_embeds")]
    with pytest.raises(ValueError, match=r"value_embeds\.1\.weight"):
        model.load_weights(weights)


def test_apply_reaches_every_parameter():
    model = make_gpt()
    model.apply(mx.zeros_like)
    assert not any(p.any() for p in values(model).values())
    assert math.isclose(model.loss(*token_batch()).item(), math.log(CONFIG.vocab_size), rel_tol=1e-6)


def test_a_copy_is_a_model_of_its_own():
    model = make_gpt()
    twin = copy.deepcopy(model)
    x, y = token_batch()
    before = model(x)
    assert mx.array_equal(twin(x), before)
    train(twin, MuonAdamW.for_gpt(twin), x, y, 1)
    assert not mx.array_equal(twin(x), before)
    assert mx.array_equal(model(x), before)


def test_ids_without_a_batch_axis_are_refused():
    with pytest.raises(ValueError, match=r"\(B, T\).*\(3,\)"):
        make_gpt()(mx.array([1, 2, 3]))


def test_a_frozen_block_gets_no_gradient():
    model = make_gpt()
    everything = set(flat(model.parameters()))
    block = {name for name in everything if name.startswith("transformer.h.0.")}
    model.transformer["h"][0].freeze()
    assert set(flat(gradients(model))) == everything - block
    model.unfreeze()
    assert set(flat(gradients(model))) == everything


def test_the_optimizer_leaves_frozen_parameters_alone():
    free, model = make_gpt(), make_gpt()
    model.transformer["h"][0].freeze()
    model.lm_head.freeze()
    start = values(model)
    frozen = {name for name in start if name.startswith(("transformer.h.0.", "lm_head."))}
    for m in (free, model):
        MuonAdamW.for_gpt(m).update(m, gradients(m))
    updated, expected = values(model), values(free)
    for name in start:  # matrices of both blocks share Muon's batches: those of the free block move as ever
        np.testing.assert_array_equal(updated[name], (start if name in frozen else expected)[name], err_msg=name)
    assert not np.array_equal(expected["lm_head.weight"], start["lm_head.weight"])


def test_matrices_behind_zero_projections_learn_from_the_second_step_on():
    model = make_gpt()
    before = flat(gradients(model))
    silent = {name for name in before if name.startswith(("transformer.h.", "value_embeds")) and "c_proj" not in name}
    assert len(silent) == 2 * 4 + 2  # q, k, v and fc of each block; the last one's gate and value embedding
    assert {name for name, g in before.items() if not mx.any(g).item()} == silent
    MuonAdamW.for_gpt(model).update(model, gradients(model))
    assert all(mx.any(g).item() for g in flat(gradients(model)).values())


def test_a_short_loop_learns_a_batch_by_heart():
    model = make_gpt()
    losses = train(model, MuonAdamW.for_gpt(model), *token_batch(), steps=30)
    assert math.isclose(losses[0], math.log(CONFIG.vocab_size), rel_tol=1e-3)
    assert losses[-1] < 0.5


@pytest.mark.parametrize("init_first", [True, False])
def test_a_compiled_loop_gives_the_numbers_of_an_uncompiled_one(init_first: bool):
    """Also where the first update makes the state, as `mlx.optimizers` allows."""

    def results(weights: dict[str, mx.array], compiled: bool = False) -> dict[str, mx.array]:
        model, optimizer = make_two_layers(), MuonAdamW(GROUPS)
        model.load_weights(list(weights.items()))
        if init_first:
            optimizer.init(model.parameters())
        losses = train(model, optimizer, *regression_batch(), steps=4, compiled=compiled)
        assert optimizer.state["scalars"]["step"].item() == 4
        return flat([model.parameters(), optimizer.state]) | {"losses": mx.array(losses)}

    weights = flat(make_two_layers().parameters())
    check_within(results(weights, compiled=True), results(weights), rounding(results, weights))


def test_a_module_of_ones_own_with_groups_of_ones_own():
    model = make_two_layers()
    start = values(model)
    losses = train(model, MuonAdamW(GROUPS), *regression_batch(), steps=30)
    assert losses[-1] < 0.1 * losses[0]
    assert all(relative_error(end, start[name]) > 0.01 for name, end in values(model).items())


def test_a_schedule_before_the_optimizer_has_state_is_refused():
    with pytest.raises(ValueError, match="init"):
        MuonAdamW(GROUPS).set_schedule(lr_multiplier=1.0, momentum=0.9, weight_decay_multiplier=1.0)


def test_scalars_do_not_promote_a_bfloat16_residual_stream():
    model, exact = make_gpt(compute_dtype=mx.bfloat16), make_gpt(compute_dtype=mx.float32)
    optimizer = MuonAdamW.for_gpt(model)
    x, y = token_batch()
    for _ in range(2):  # the second time round every branch of the model contributes
        assert model.hidden(x).dtype == mx.bfloat16
        assert model(x).dtype == mx.float32
        grads = gradients(model)
        assert {g.dtype for g in flat(grads).values()} == {mx.float32}
        optimizer.update(model, grads)
    assert {p.dtype for p in flat([model.parameters(), optimizer.state]).values()} == {mx.float32}
    train(exact, MuonAdamW.for_gpt(exact), x, y, steps=2)
    assert math.isclose(model.loss(x, y).item(), exact.loss(x, y).item(), rel_tol=0.05)

import pytest
from mlx.utils import tree_flatten

from mlx_autoresearch import GPT, GPTConfig
from mlx_autoresearch.recipe.optimizer import gpt_groups
from mlx_autoresearch.recipe.roles import role_of


@pytest.mark.parametrize("mlp", ["relu2", "swiglu", "gelu"])
def test_the_count_of_each_role_is_that_of_its_groups(mlp) -> None:
    model = GPT(GPTConfig(sequence_len=8, vocab_size=11, n_layer=3, n_head=2, n_kv_head=1, n_embd=16, mlp=mlp))
    sizes = {name: p.size for name, p in tree_flatten(model.parameters())}
    counts = dict.fromkeys(("wte", "value_embeds", "lm_head", "transformer_matrices", "resid_lambdas", "x0_lambdas"), 0)
    for group in gpt_groups(model):
        (role,) = {role_of(name) for name in group.names}
        assert role is not None
        counts[role] += sum(sizes[name] for name in group.names)
    scalars = counts.pop("resid_lambdas") + counts.pop("x0_lambdas")
    assert model.parameter_counts() == counts | {"scalars": scalars, "total": sum(sizes.values())}


@pytest.mark.parametrize("name", ["bias", "lm_head", "transformer.ln_f.weight", "value_embed.0.weight"])
def test_other_parameters_have_no_role(name: str) -> None:
    assert role_of(name) is None

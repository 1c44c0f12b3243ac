"""What each parameter of a GPT is, by its name: the model counts by role, the optimizer groups by it."""

from __future__ import annotations

from typing import Literal

Role = Literal["wte", "value_embeds", "lm_head", "transformer_matrices", "resid_lambdas", "x0_lambdas"]

_PREFIXES: dict[str, Role] = {
    "transformer.wte.": "wte",
    "value_embeds.": "value_embeds",
    "lm_head.": "lm_head",
    "transformer.h.": "transformer_matrices",
    "resid_lambdas": "resid_lambdas",
    "x0_lambdas": "x0_lambdas",
}


def role_of(name: str) -> Role | None:
    """The role of the parameter with this dotted name; None for one that the reference's model does not have."""
    return next((role for prefix, role in _PREFIXES.items() if name.startswith(prefix)), None)

"""The operations of the model and the optimizer that have two implementations, by name."""

OPERATIONS = {
    "attention",
    "embedding",
    "linear_cross_entropy",
    "mixed_norm",
    "newton_schulz",
    "norm_rope",
    "residual_norm",
}

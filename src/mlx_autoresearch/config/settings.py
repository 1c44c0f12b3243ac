"""Typed, validated configuration: defaults <- YAML <- ``key=value`` on the command line.

Field names are the reference's (karpathy/autoresearch, train.py). A configuration that validates can be trained:
every rule that the model, the trainer or the evaluator relies on is checked here, before any work is done. Only the
section `recipe` is checked elsewhere: the recipe declares its settings, and `recipe.settings` reads them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SkipValidation,
    field_validator,
    model_validator,
)

from mlx_autoresearch.data.sources import SourceConfig, Stdlib
from mlx_autoresearch.data.vocabulary import MAX_VOCAB_SIZE, MIN_VOCAB_SIZE

from .gpt import GPTConfig, MLPKind, WindowPattern
from .yaml_text import dump_yaml


def _scalar_or_list(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        raise ValueError("a setting of the recipe is a scalar or a list, not a mapping")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a setting of the recipe must be finite")
    if isinstance(value, list):
        return [_scalar_or_list(entry) for entry in value]
    return value


Beta = Annotated[float, Field(ge=0, lt=1)]
RecipeValue = Annotated[JsonValue, AfterValidator(_scalar_or_list)]


class Section(BaseModel):
    """A frozen group of fields that accepts no unknown key."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


class DataConfig(Section):
    """Which text, and how it becomes tokens."""

    source: SourceConfig = Field(default=Stdlib(), description="where the text comes from")
    vocab_size: int = Field(
        default=4096, ge=MIN_VOCAB_SIZE, le=MAX_VOCAB_SIZE, description="tokens, the special ones included"
    )

    @field_validator("source", mode="before")
    @classmethod
    def _with_kind(cls, source: Any) -> Any:
        """`source: text` is short for `source: {kind: text}`, and the default's kind need not be given."""
        if isinstance(source, str):
            return {"kind": source}
        return {"kind": Stdlib().kind, **source} if isinstance(source, dict) else source


class ModelConfig(Section):
    """The GPT's shape; ``depth`` derives whatever of n_layer, n_embd and n_head is not given."""

    depth: int = Field(default=4, ge=1, le=256)
    aspect_ratio: int = Field(
        default=64, ge=1, le=4096, description="n_embd = depth * aspect_ratio, rounded up to a multiple of head_dim"
    )
    head_dim: int = Field(default=128, ge=2, le=1024, multiple_of=2, description="n_head = n_embd / head_dim")
    n_layer: int | None = Field(default=None, ge=1, le=256, description="depth when not given")
    n_embd: int | None = Field(default=None, ge=2, le=1_048_576)
    n_head: int | None = Field(
        default=None, ge=1, description="if given, a head is n_embd / n_head wide, whatever head_dim says"
    )
    n_kv_head: int | None = Field(default=None, ge=1, description="key/value heads; n_head when not given")
    sequence_len: int = Field(default=512, ge=1, le=1_048_576, description="training row length T in tokens")
    window_pattern: SkipValidation[WindowPattern] = Field(  # GPTConfig checks it, with plainer messages
        default=GPTConfig.window_pattern, description="per layer, repeated: S half, L full, or a number of keys"
    )
    mlp: MLPKind = GPTConfig.mlp
    softcap: float | None = Field(
        default=GPTConfig.softcap, gt=0, description="logits = softcap * tanh(logits / softcap)"
    )
    embedding_norm: bool = Field(default=GPTConfig.embedding_norm, description="rms-norm the token embedding")
    value_embeds: bool = Field(
        default=GPTConfig.value_embeds, description="gated value embeddings on alternating layers"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.n_head is None and self.n_embd is not None and self.n_embd % self.head_dim:
            raise ValueError(
                f"n_embd must be a multiple of head_dim={self.head_dim} where n_head is not given, got {self.n_embd}"
            )
        try:
            self.gpt_config(MIN_VOCAB_SIZE)
        except ValueError as error:  # the same rules hold for a GPTConfig built by hand
            raise ValueError(str(error).removeprefix("[GPTConfig] ")) from None
        return self

    def gpt_config(self, vocab_size: int) -> GPTConfig:
        """The resolved shape, as the reference's build_model_config derives it from depth."""
        n_embd = self.n_embd
        if n_embd is None:
            n_embd = -(-self.depth * self.aspect_ratio // self.head_dim) * self.head_dim
        n_head = self.n_head if self.n_head is not None else n_embd // self.head_dim
        derived = {
            "vocab_size": vocab_size,
            "n_layer": self.n_layer if self.n_layer is not None else self.depth,
            "n_head": n_head,
            "n_kv_head": self.n_kv_head if self.n_kv_head is not None else n_head,
            "n_embd": n_embd,
        }
        same = {field.name: getattr(self, field.name) for field in fields(GPTConfig) if field.name not in derived}
        return GPTConfig(**derived, **same)


class OptimizerConfig(Section):
    """MuonAdamW; AdamW's learning rates are those at width 768 and scale by (n_embd / 768) ** -0.5."""

    unembedding_lr: float = Field(default=0.004, ge=0)
    embedding_lr: float = Field(default=0.6, ge=0)
    matrix_lr: float = Field(default=0.04, ge=0, description="Muon's, for the matrices inside the blocks")
    scalar_lr: float = Field(default=0.5, ge=0)
    scalar_eps: float = Field(
        default=1e-10,
        gt=0,
        description="AdamW's for resid_lambdas and x0_lambdas; above rounding noise, see RESULTS.md",
    )
    weight_decay: float = Field(default=0.2, ge=0, description="cautious, Muon only, decays to 0 over the run")
    adam_betas: tuple[Beta, Beta] = (0.8, 0.95)
    muon_beta2: Beta = Field(default=0.95, description="NorMuon's second moment")
    ns_steps: int = Field(default=5, ge=1, le=5, description="Newton-Schulz iterations")


class TrainConfig(Section):
    """How long and how fast to train."""

    seed: int = Field(default=42, ge=0, lt=2**63)
    time_budget: float = Field(default=60.0, gt=0, description="seconds of training; the first step is not counted")
    max_steps: int | None = Field(default=None, ge=1, description="train this many steps instead of time_budget")
    total_batch_size: int = Field(default=8192, ge=1, le=2**31, description="tokens per optimizer step")
    device_batch_size: int = Field(default=16, ge=1, le=65_536, description="rows per forward and backward pass")
    warmup_ratio: float = Field(default=0.0, ge=0, le=1)
    warmdown_ratio: float = Field(default=0.5, ge=0, le=1)
    final_lr_frac: float = Field(default=0.0, ge=0, le=1)
    muon_momentum: tuple[Beta, Beta] = Field(default=(0.85, 0.95), description="start and end of the ramp")
    muon_momentum_steps: int = Field(default=300, ge=1, description="steps of the momentum ramp")
    compute_dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="of activations; auto: float32 on a CPU, on a GPU what it is fast in (docs/mac.md)"
    )
    checkpoint_every: float | None = Field(default=60.0, gt=0, description="seconds of training between checkpoints")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.warmup_ratio + self.warmdown_ratio > 1:
            raise ValueError(
                f"warmup_ratio + warmdown_ratio must not exceed 1, got {self.warmup_ratio} + {self.warmdown_ratio}"
            )
        return self


class EvaluateConfig(Section):
    """The frozen metric's size: comparable between runs only when these and the data are the same."""

    eval_tokens: int = Field(default=131_072, ge=1, description="validation tokens scored, at most")
    sequence_len: int = Field(
        default=512, ge=1, le=1_048_576, description="row length of the evaluation, whatever the model's"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.eval_tokens < self.sequence_len:
            raise ValueError(
                f"eval_tokens must be at least one row of sequence_len={self.sequence_len}, got {self.eval_tokens}"
            )
        return self


@dataclass(frozen=True)
class RecipeConfig:
    """What the recipe is told of a configuration: all but the data.

    A data source can read files, and the validation text among them; a recipe may be an experiment's.
    """

    gpt: GPTConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    kernels: Literal["auto", "mlx", "custom"]
    recipe: dict[str, Any]
    accumulation_steps: int


class Config(Section):
    """Everything that one training run is made from."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    kernels: Literal["auto", "mlx", "custom"] = Field(
        default="auto", description="composed MLX, our kernels, or for each shape the faster of the two here"
    )
    recipe: dict[str, RecipeValue] = Field(
        default={}, description="settings that the recipe declares in recipe/settings.py: scalars and lists"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        micro = self.train.device_batch_size * self.model.sequence_len
        if self.train.total_batch_size % micro:
            raise ValueError(
                f"train.total_batch_size must be a multiple of train.device_batch_size * model.sequence_len = "
                f"{self.train.device_batch_size} * {self.model.sequence_len} = {micro}, "
                f"got {self.train.total_batch_size}"
            )
        return self

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches per optimizer step."""
        return self.train.total_batch_size // (self.train.device_batch_size * self.model.sequence_len)

    def gpt_config(self) -> GPTConfig:
        """The model's resolved shape."""
        return self.model.gpt_config(self.data.vocab_size)

    def for_recipe(self) -> RecipeConfig:
        """What the recipe is told."""
        return RecipeConfig(
            gpt=self.gpt_config(),
            optimizer=self.optimizer,
            train=self.train,
            kernels=self.kernels,
            recipe=dict(self.recipe),
            accumulation_steps=self.accumulation_steps,
        )

    def to_yaml(self) -> str:
        """The resolved configuration as YAML that `load_config` reads back to an equal one.

        Derived sizes are a comment and not fields: as fields they would win over a depth that is edited later.
        """
        gpt = self.gpt_config()
        derived = f"n_layer {gpt.n_layer}, n_embd {gpt.n_embd}, n_head {gpt.n_head}, n_kv_head {gpt.n_kv_head}"
        return (
            f"# derived: {derived}, head_dim {gpt.head_dim}; {self.accumulation_steps} micro-batches per step\n"
            + dump_yaml(self.model_dump(mode="json"))
        )

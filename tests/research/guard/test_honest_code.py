"""One table: ideas of the kind that agents write. None of them may be refused."""

from __future__ import annotations

import pytest

from mlx_autoresearch.research.guard.scan import scan

TOP = "from __future__ import annotations\n\nimport mlx.core as mx\nimport mlx.nn as nn\n"

IDEAS = {
    "grouped attention with sinks": """
class SinkAttention(nn.Module):
    def __init__(self, dims: int, heads: int):
        super().__init__()
        self.heads, self.sink = heads, mx.zeros((heads,))
        self.qkv = nn.Linear(dims, 3 * dims, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        q, k, v = (part.reshape(*x.shape[:2], self.heads, -1).swapaxes(1, 2) for part in mx.split(self.qkv(x), 3, -1))
        mask = mx.triu(mx.full((x.shape[1], x.shape[1]), -mx.inf), k=1).astype(x.dtype)
        y = mx.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5, mask=mask, sinks=self.sink)
        return y.swapaxes(1, 2).flatten(-2)
""",
    "sliding window by einsum": """
def attend(q, k, v, window):
    scores = mx.einsum("bthd,bshd->bhts", q, k) * q.shape[-1] ** -0.5
    distance = mx.arange(q.shape[1])[:, None] - mx.arange(q.shape[1])[None]
    visible = mx.logical_and(distance >= 0, distance <= window)
    return mx.einsum("bhts,bshd->bthd", mx.softmax(mx.where(visible, scores, -mx.inf), axis=-1, precise=True), v)
""",
    "SwiGLU": """
class SwiGLU(nn.Module):
    def __init__(self, dims: int, hidden: int):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(dims, hidden), nn.Linear(dims, hidden), nn.Linear(hidden, dims)

    def __call__(self, x):
        return self.down(nn.silu(self.gate(x)) * self.up(x))

    def _extra_repr(self) -> str:
        return f"hidden={self.gate.weight.shape[0]:,}"
""",
    "mixture of experts": """
class MoE(nn.Module):
    def __init__(self, dims: int, experts: int, top: int = 2):
        super().__init__()
        self.router, self.top, self.load = nn.Linear(dims, experts, bias=False), top, mx.zeros((experts,))
        self.w = mx.random.normal((experts, dims, dims)) * dims**-0.5

    def __call__(self, x):
        logits = self.router(x)
        chosen = mx.stop_gradient(mx.argpartition(-logits, self.top - 1, axis=-1)[..., : self.top])
        weights = mx.softmax(mx.take_along_axis(logits, chosen, axis=-1), axis=-1)
        y = mx.gather_mm(x[..., None, None, :], self.w, rhs_indices=chosen).squeeze(-2)
        self.load = mx.zeros_like(self.load).at[chosen.flatten()].add(1)
        return (y * weights[..., None]).sum(-2)
""",
    "moving average of the weights": """
from mlx.utils import tree_flatten, tree_map, tree_unflatten

class Average:
    def __init__(self, model: nn.Module, decay: float = 0.999):
        self.decay, self.mean = decay, tree_map(lambda p: p.astype(mx.float32), model.trainable_parameters())

    def update(self, model: nn.Module) -> None:
        self.mean = tree_map(lambda a, p: self.decay * a + (1 - self.decay) * p, self.mean, model.parameters())
        mx.eval(self.mean)

    def copy_to(self, model: nn.Module) -> None:
        model.update(tree_unflatten(tree_flatten(self.mean)))
""",
    "an optimizer of one's own": """
import mlx.optimizers as optim

class Sophia(optim.Optimizer):
    def __init__(self, learning_rate, betas=(0.96, 0.99), rho: float = 0.04):
        super().__init__()
        self._maybe_schedule("learning_rate", learning_rate)
        self.betas, self.rho = betas, rho

    def init_single(self, parameter: mx.array, state: dict):
        state["m"], state["h"] = mx.zeros_like(parameter), mx.zeros_like(parameter)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict):
        b1, b2 = self.betas
        state["m"] = b1 * state["m"] + (1 - b1) * gradient
        state["h"] = b2 * state["h"] + (1 - b2) * gradient.square()
        update = mx.clip(state["m"] / mx.maximum(self.rho * state["h"], 1e-12), -1, 1)
        return parameter - self.learning_rate.astype(gradient.dtype) * update
""",
    "optimizers of MLX": """
from mlx.optimizers import AdamW, Lion, clip_grad_norm, cosine_decay, join_schedules, linear_schedule

def make(model, steps):
    schedule = join_schedules([linear_schedule(0, 1e-3, 100), cosine_decay(1e-3, steps - 100)], [100])
    return AdamW(schedule, betas=[0.9, 0.95], weight_decay=0.1), Lion(1e-4)

def step(loss, model, optimizer, x, y):
    value, grads = nn.value_and_grad(model, loss)(model, x, y)
    grads, norm = clip_grad_norm(grads, 1.0)
    optimizer.update(model, grads)
    return value
""",
    "a schedule from numpy": """
import math
import numpy as np

KNOTS = np.array([[0.0, 0.0], [0.1, 1.0], [0.6, 1.0], [1.0, 0.05]])

def lr_multiplier(progress: float, *, power: float = 1.0) -> float:
    value = float(np.interp(progress, KNOTS[:, 0], KNOTS[:, 1]))
    return value**power * 0.5 * (1 + math.cos(math.pi * progress))
""",
    "a Metal kernel in Python": '''
from functools import lru_cache

SOURCE = """
    uint i = thread_position_in_grid.x;
    if (i < SIZE) { T x = a[i]; out[i] = x > 0 ? x * x : T(0); }
"""

@lru_cache
def _kernel():
    return mx.fast.metal_kernel(name="squared_relu", input_names=["a"], output_names=["out"], source=SOURCE)

def squared_relu(a: mx.array) -> mx.array:
    if not mx.metal.is_available():
        return mx.square(mx.maximum(a, 0))
    return _kernel()(inputs=[a], template=[("T", a.dtype), ("SIZE", a.size)], grid=(a.size, 1, 1),
                     threadgroup=(256, 1, 1), output_shapes=[a.shape], output_dtypes=[a.dtype])[0]
''',
    "a kernel of the folder": """
import numpy as np
from mlx_autoresearch.kernels.launch import launch
from mlx_autoresearch.kernels.operation import Language, Operation, random_like
from ..shapes import check_float

def scale(x: mx.array, language: Language) -> mx.array:
    check_float("scale", x)
    (y,) = launch("scale", language, {"x": x}, N=x.size, dtype=str(x.dtype).removeprefix("mlx.core."))
    return y
""",
    "settings by dataclass": """
from dataclasses import asdict, dataclass, field, replace
from typing import ClassVar, Literal

@dataclass(frozen=True, slots=True)
class Options:
    kind: Literal["soft", "hard"] = "soft"
    betas: tuple[float, float] = (0.9, 0.95)
    layers: list[int] = field(default_factory=list)
    LIMIT: ClassVar[int] = 8

    def __post_init__(self) -> None:
        if len(self.layers) > self.LIMIT:
            raise ValueError(f"layers has {len(self.layers)} entries, at most {self.LIMIT} are allowed")
        object.__setattr__(self, "kind", self.kind.lower())

HARD = replace(Options(), kind="hard")
print({key: value for key, value in asdict(HARD).items()})
""",
    "a protocol": """
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

T = TypeVar("T")

@runtime_checkable
class Mixer(Protocol):
    dims: int
    def __call__(self, x: mx.array, *, cache: Any = None) -> mx.array: ...

class Stack(Generic[T]):
    def __init__(self, parts: list[T]): self.parts = parts
    def __iter__(self) -> Iterator[T]: return iter(self.parts)
    def __len__(self) -> int: return len(self.parts)
    def __getitem__(self, index: int) -> "T": return self.parts[index]
""",
    "partial and compile": """
from functools import partial, reduce

def make_step(model, optimizer, loss):
    state = [model.state, optimizer.state, mx.random.state]

    @partial(mx.compile, inputs=state, outputs=state)
    def step(x, y):
        value, grads = nn.value_and_grad(model, loss)(x, y)
        optimizer.update(model, grads)
        return value

    return step

def compose(*functions):
    return reduce(lambda f, g: lambda x: g(f(x)), functions)
""",
    "options by enum": """
import enum

class Norm(str, enum.Enum):
    RMS = "rms"
    LAYER = "layer"

    def make(self, dims: int) -> nn.Module:
        match self:
            case Norm.RMS:
                return nn.RMSNorm(dims)
            case Norm.LAYER:
                return nn.LayerNorm(dims)

class Flags(enum.Flag):
    GATED = enum.auto()
    TIED = enum.auto()

def is_norm(kind: type[Norm], other: tuple[type, ...] | None = None) -> type | None:
    return kind if issubclass(kind, enum.Enum) and type(kind) is not type(other) else None
""",
    "vmap": """
def per_head(f, x, w):
    return mx.vmap(f, in_axes=(1, 0), out_axes=1)(x, w)

def hessian_diagonal(f, x, key):
    v = mx.random.randint(0, 2, x.shape, key=key) * 2.0 - 1
    return v * mx.jvp(mx.grad(f), [x], [v])[1][0]
""",
    "checkpointing": """
class Checkpointed(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.blocks = blocks

    def __call__(self, x):
        for block in self.blocks:
            x = nn.utils.checkpoint(block)(x) if self.training else block(x)
        return mx.checkpoint(lambda h: mx.fast.rms_norm(h, None, 1e-6))(x)
""",
    "a gradient of one's own": """
@mx.custom_function
def round_through(x):
    return mx.round(x)

@round_through.vjp
def _(primals, cotangents, outputs):
    return cotangents
""",
    "decorators": """
from collections.abc import Callable
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property, wraps

def in_float32(function: Callable) -> Callable:
    @wraps(function)
    def wrapped(*args, **kwargs):
        return function(*(a.astype(mx.float32) if isinstance(a, mx.array) else a for a in args), **kwargs)
    return wrapped

@contextmanager
def frozen(model: nn.Module):
    model.freeze()
    try:
        yield model
    finally:
        model.unfreeze()

class Table(nn.Module):
    @cached_property
    def rows(self) -> int:
        return 3
    @property
    def name(self) -> str:
        return f"{self.__class__.__name__}[{type(self).__name__:>8}]"
    @classmethod
    def of(cls, rows): return cls(rows)
    @staticmethod
    def zero(): return 0
""",
    "layers by number": """
class Stack(nn.Module):
    def __init__(self, depth: int, dims: int):
        super().__init__()
        for i in range(depth):
            setattr(self, f"layer_{i}", nn.Linear(dims, dims))
        self.depth = depth

    def __call__(self, input: mx.array, type: str = "plain") -> mx.array:
        for i in range(self.depth):
            input = getattr(self, f"layer_{i}")(input)
        return input if type == "plain" else nn.tanh(input)
""",
    "layers of MLX": """
from mlx.nn.losses import cross_entropy
from mlx.nn.layers import GroupNorm, Linear

def build(dims):
    return nn.Sequential(nn.Linear(dims, dims), nn.GELU(), nn.Dropout(0.1), nn.RMSNorm(dims), nn.Conv1d(dims, dims, 3))

def start(layer):
    layer.weight = nn.init.glorot_uniform()(layer.weight)
    return nn.losses.cross_entropy(layer.weight, mx.array([0]), reduction="mean", label_smoothing=0.1)
""",
    "rotary positions": """
import itertools
import numpy as np
import numpy.typing as npt

def table(length: int, dims: int, base: float = 10_000.0) -> npt.NDArray[np.float32]:
    inverse = base ** (-np.arange(0, dims, 2, dtype=np.float64) / dims)
    angles = np.outer(np.arange(length), inverse)
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)

def turn(x, offset=0):
    return mx.fast.rope(x, x.shape[-1], traditional=False, base=10_000.0, scale=1.0, offset=offset)

PAIRS = list(itertools.pairwise(range(4)))
""",
    "numpy's random numbers and linear algebra": """
import numpy as np

rng = np.random.default_rng(np.random.SeedSequence([1, 2]))

def orthogonal(rows: int, columns: int) -> mx.array:
    q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))
    return mx.array(q if rows >= columns else q.T, dtype=mx.float32)

def spectrum(w):
    with np.errstate(divide="ignore"), mx.stream(mx.cpu):
        return np.log(np.linalg.svd(np.array(w), compute_uv=False)), np.abs(np.fft.rfft(np.ones(8))), mx.linalg.qr(w)
""",
    "matrix steps": """
import operator
from itertools import accumulate
from math import prod, sqrt

COEFFICIENTS = [(3.4445, -4.7750, 2.0315)] * 5

def orthogonalize(g: mx.array) -> mx.array:
    x = g / (mx.linalg.norm(g) + 1e-7)
    for a, b, c in COEFFICIENTS:
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x * sqrt(max(1, g.shape[0] / g.shape[1]))

SIZES = list(accumulate([2, 3], operator.mul)) + [prod((2, 3))]
""",
    "named tuples and collections": """
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from typing import NamedTuple, TypedDict

Pair = namedtuple("Pair", "key value")

class Both(namedtuple("Both", ["a", "b"])):
    __slots__ = ()
    def total(self): return self.a + self.b

class Window(NamedTuple):
    left: int
    right: int = 0

class State(TypedDict, total=False):
    m: mx.array

groups: dict[str, list] = defaultdict(list)
recent = deque(maxlen=8)
Window(1)._replace(right=2)._asdict()
""",
    "pattern matching": """
def route(x):
    match x:
        case mx.array(ndim=2): return 1
        case [int(), *rest]: return rest
        case {"w": w, **others}: return w, others
        case str(name) | int(name): return name
        case None: return None
        case _: raise TypeError(f"[route] expected an array, got {type(x).__name__}")
""",
    "text by format": """
def describe(x, names=("a", "b")):
    lines = ["{:>10}: {:.3f} {n[0]}".format("loss", x, n=names), "%s %d" % ("x", 3), f"{x!r:>{10}}", "{}".join(names)]
    print("\\n".join(lines), flush=True)
    return str(x.dtype).split(".")[-1], hasattr(x, "T"), getattr(x, "shape", None), isinstance(x, type)
""",
    "the end of training at other rates": """
from mlx_autoresearch.errors import UserError
from .settings import Settings
from . import schedule

def cooldown(optimizer, progress: float, settings: Settings) -> float:
    if not 0 <= settings.cooldown <= 1:
        raise UserError(f"recipe.cooldown must be from 0 to 1, got {settings.cooldown}")
    multiplier = schedule.lr_multiplier(progress, 0.0, settings.cooldown, 0.0)
    for group in optimizer.groups:
        group.lr = group.initial_lr * multiplier
        optimizer.state["step"] = mx.array(0)
    return multiplier
""",
    "a kernel's definition": """
import numpy as np

def definition(x, weight, eps):
    s = np.asarray(x, np.float64)
    r = 1 / np.sqrt((s**2).mean(axis=-1, keepdims=True) + eps[0])
    return {"y": s * r * weight, "order": np.argsort(-s, axis=-1, kind="stable"), "p": np.exp(s - np.max(s))}
""",
}


@pytest.mark.parametrize("idea", IDEAS)
def test_an_honest_idea_passes(idea: str) -> None:
    folder = "kernels/" if "kernel of the folder" in idea else ""
    assert scan(f"src/mlx_autoresearch/recipe/{folder}idea.py", (TOP + IDEAS[idea]).encode(), None) == []


def test_there_are_many_and_they_are_python() -> None:
    assert len(IDEAS) >= 25
    for idea, code in IDEAS.items():
        compile(TOP + code, idea, "exec")

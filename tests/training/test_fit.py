"""What fits a Mac, and what is refused with the setting that fits; how long a dispatch gets is counted in a step."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_autoresearch.config.load import load_config, split_settings
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.errors import OutOfMemory, UserError
from mlx_autoresearch.kernels.launch import launches
from mlx_autoresearch.machine import device
from mlx_autoresearch.recipe import attention, interface, loss, muon
from mlx_autoresearch.training import fit, memory
from mlx_autoresearch.training.memory import CHUNK_ELEMENTS, memory_needed
from mlx_autoresearch.training.setup import compute_dtype, make_model
from mlx_autoresearch.training.tune import tune
from tests.support.mac.metal import fake_metal
from tests.support.mac.models import MODELS

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
FLOP_A_PAIR = {"flash_attention_forward": 4, "flash_attention_dq": 6, "flash_attention_dkdv_pairs": 8}  # head_dim apart


@pytest.fixture(params=MODELS)
def a_mac(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    on_mac(monkeypatch, request.param)
    return request.param


def on_mac(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    monkeypatch.delenv("AGX_RELAX_CDM_CTXSTORE_TIMEOUT", raising=False)
    monkeypatch.setattr(mx, "device_info", lambda *_: MODELS[model].device_info())
    monkeypatch.setattr(device, "is_gpu", lambda: True)
    for module in (attention, loss, muon):
        monkeypatch.setattr(module, "is_gpu", lambda: True)
    monkeypatch.setattr(device, "kernel_backend", lambda: "metal")


def configuration(name: str, *settings: str) -> Config:
    return load_config(*split_settings([str(ROOT / f"configs/{name}.yaml"), *settings]))


def check(config: Config) -> None:
    fit.check_fit(config, make_model(config).parameter_counts(), 2)


def fitting(name: str) -> Config:
    """The shipped configuration, with the setting that its refusal names where it is refused."""
    config = configuration(name)
    try:
        check(config)
    except UserError as error:
        setting = str(error).split("; ")[-1].removesuffix(" fits")
        config = configuration(name, setting)
        check(config)
    return config


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_configuration_fits_or_the_setting_that_fits_is_named(a_mac: str, name: str) -> None:
    rows = fitting(name).train.device_batch_size
    if name != "reference":
        assert rows == configuration(name).train.device_batch_size
        return
    assert rows == {8: 2, 16: 4, 24: 8}.get(MODELS[a_mac].memory, 16)
    needed = memory_needed(
        fitting(name), make_model(fitting(name)).parameter_counts(), itemsize=2, backend="metal", kernels=False
    )
    assert needed < 0.8 * MODELS[a_mac].memory * 2**30, "the limit of a trial, which counts more than arrays"
    doubled = configuration(name, f"train.device_batch_size={2 * rows}")
    with pytest.raises(UserError):
        check(doubled)


def test_the_table_of_the_docs_is_what_fits(a_mac: str) -> None:
    lines = (ROOT / "docs/mac.md").read_text().splitlines()
    memory = MODELS[a_mac].memory
    (row,) = [line.split("|")[1:-1] for line in lines if line.startswith(f"| {memory} GB |")]
    rows = fitting("reference").train.device_batch_size
    assert int(row[2]) == rows
    with pytest.raises(UserError) as refused:
        check(configuration("reference", f"train.device_batch_size={2 * rows}"))
    assert row[3].strip() == ("memory" if isinstance(refused.value, OutOfMemory) else "the watchdog")
    recommended = device.memory_limits().recommended / 2**30
    assert float(row[1].removesuffix("GiB ")) == pytest.approx(recommended, abs=0.06)


def test_no_dispatch_of_a_shipped_configuration_is_longer_than_a_quarter_teraflop(monkeypatch) -> None:
    """At the largest batch that any Mac gets; a step's dispatches are counted, its products and kernels alike."""
    on_mac(monkeypatch, "M4 Max 128 GB")
    for name in SHIPPED:
        config = fitting(name)
        for kernels in ("mlx", "custom"):
            longest = max(dispatches(config.model_copy(update={"kernels": kernels}), monkeypatch))
            assert longest <= fit.LONGEST_DISPATCH
            assert longest <= 1.01 * fit.longest_dispatch(config)[1], name
    assert fit.longest_dispatch(configuration("reference"))[1] > fit.LONGEST_DISPATCH


def test_newton_schulz_of_a_deep_model_is_split(monkeypatch) -> None:
    """All matrices of a shape are one product otherwise: 0.34 and 0.70 TFLOP, whatever the batch."""
    on_mac(monkeypatch, "M4 Max 128 GB")
    for depth in (20, 24):
        config = configuration(
            "default", f"model.depth={depth}", "train.device_batch_size=4", "train.total_batch_size=2048"
        )
        for kernels in ("mlx", "custom"):
            longest = max(dispatches(config.model_copy(update={"kernels": kernels}), monkeypatch))
            assert longest <= fit.LONGEST_DISPATCH


def dispatches(config: Config, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """FLOP of every product and every launch of attention and Newton-Schulz in a step, which is traced, not computed.

    A product's gradients, which MLX makes, are products of the same size.
    """
    found: list[float] = []
    product, attend = mx.array.__matmul__, mx.fast.scaled_dot_product_attention

    def attended(q: mx.array, k: mx.array, v: mx.array, **options: Any) -> mx.array:
        pairs = q.shape[2] * k.shape[2] / (2 if isinstance(options["mask"], str) else 1)  # "causal"
        found.append(4.0 * q.shape[0] * q.shape[1] * q.shape[3] * pairs)
        return attend(q, k, v, **options)

    def counted(a: mx.array, b: mx.array) -> mx.array:
        found.append(2.0 * a.size * b.shape[-1])
        return product(a, b)

    model = make_model(config)
    told = config.for_recipe()
    with monkeypatch.context() as patch, launches() as launched:
        fake_metal(patch, ())
        patch.setattr(mx.array, "__matmul__", counted)
        patch.setattr(mx.fast, "scaled_dot_product_attention", attended)
        optimizer = interface.make_optimizer(model, told)
        interface.trace_step(model, optimizer, told)
    assert len(found) > 10
    return found + [kernel_flop(name, dict(sizes)) for name, _, sizes in launched]


def kernel_flop(name: str, sizes: dict[str, Any]) -> float:
    if name in FLOP_A_PAIR:
        T, window = sizes["T"], sizes["window"]
        pairs = sum(min(query, T if window < 0 else window) + 1 for query in range(T))
        return FLOP_A_PAIR[name] * sizes["B"] * sizes["H"] * sizes["D"] * pairs
    assert "attention" not in name
    if name.startswith("newton_schulz"):
        n, m = sizes["n"], sizes.get("m", sizes["n"])
        return 2.0 * sizes["N"] * m * n * min(m, n)
    return float(prod(size for key, size in sizes.items() if key in ("rows", "C", "V", "B", "T", "H", "D")))


def test_what_is_refused_for_its_longest_dispatch_is_allowed_to_who_relaxed_the_watchdog(monkeypatch) -> None:
    on_mac(monkeypatch, "M4 Max 128 GB")
    config = configuration("reference", "train.device_batch_size=64")
    with pytest.raises(UserError, match=r"attention's gradient is 0\.55 TFLOP .*; train\.device_batch_size=16 fits"):
        check(config)
    monkeypatch.setenv("AGX_RELAX_CDM_CTXSTORE_TIMEOUT", "0")
    with pytest.raises(UserError):
        check(config)
    monkeypatch.setenv("AGX_RELAX_CDM_CTXSTORE_TIMEOUT", "1")
    check(config)


def test_other_gpus_have_no_watchdog(monkeypatch) -> None:
    on_mac(monkeypatch, "M4 Max 128 GB")
    monkeypatch.setattr(device, "kernel_backend", lambda: "cuda")
    check(configuration("reference", "train.device_batch_size=64"))


def test_where_no_batch_fits_none_is_named(monkeypatch) -> None:
    on_mac(monkeypatch, "M1 8 GB")
    with pytest.raises(OutOfMemory, match=r"about [\d.]+ GiB of memory, more than Metal .*5\.3 GiB; lower the"):
        check(configuration("default", "model.depth=16"))


def test_the_batch_that_is_named_divides_the_total(monkeypatch) -> None:
    on_mac(monkeypatch, "M1 8 GB")
    config = configuration("reference", "train.device_batch_size=9", "train.total_batch_size=184320")  # 90 rows
    with pytest.raises(OutOfMemory, match=r"train\.device_batch_size=3 fits"):
        check(config)


def test_more_than_metal_recommends_is_a_warning(monkeypatch) -> None:
    on_mac(monkeypatch, "M1 8 GB")
    assert fit.memory_warning(5 * 2**30) is None
    warning = fit.memory_warning(6 * 2**30)
    assert warning and warning.startswith("a step takes 6.0 GiB, more than the 5.3 GiB that Metal recommends")
    monkeypatch.setattr(mx, "device_info", lambda *_: {"total_memory": 2**30})  # a GPU with memory of its own
    assert fit.memory_warning(6 * 2**30) is None


def test_the_recipe_computes_as_many_logits_at_once_as_the_estimate_thinks(monkeypatch) -> None:
    for kind, gpu in (("cpu", False), ("gpu", True)):
        monkeypatch.setattr(loss, "is_gpu", lambda gpu=gpu: gpu)
        assert loss._chunk_elements() == CHUNK_ELEMENTS[kind]


def test_attention_keeps_what_the_estimate_thinks(monkeypatch) -> None:
    for T, window in ((1, 0), (128, 5), (300, 127), (300, 128), (513, 600), (1000, 256)):
        blocks = attention._blocks(T, 1, window)
        pairs = sum((rows.stop - rows.start) * (keys.stop - keys.start) for rows, keys, _ in blocks)
        assert memory._blocked_pairs(T, window) == pairs
    monkeypatch.setattr(attention, "is_gpu", lambda: True)
    seen = []
    monkeypatch.setattr(attention, "fused", lambda q, k, v, mask: seen.append((q.shape, k.shape)) or q)
    for T, window in ((512, 256), (1024, 200), (1025, 512), (1025, 513), (4096, 2048), (4096, 7)):
        attention.composed(*(mx.zeros((1, T, 1, 8)) for _ in range(3)), window)
        (queries, keys), _ = seen[-1], seen.clear()
        assert memory.is_banded(T, window) == (keys[1] < T)
        assert keys[1] == (memory._banded_keys(window) if memory.is_banded(T, window) else T)
        assert queries[1] <= keys[1]


def measured() -> list[list[str]]:
    """The rows of the table in benchmarks/RESULTS.md: device, configuration, rows, kernels, estimate, peak, ratio."""
    lines = (ROOT / "benchmarks/RESULTS.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| device | configuration | device_batch_size"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return rows
        rows.append([cell.strip() for cell in line.split("|")[1:-1]])
    raise AssertionError


@pytest.mark.parametrize("row", measured(), ids=lambda row: "-".join(row[:4]))
def test_the_estimate_is_within_a_fifth_of_what_was_measured(row: list[str]) -> None:
    where, words, count, kernels, written, peak, _ = row
    name, *settings = words.replace(".yaml", "").split()
    T = next((int(s.split("=")[1]) for s in settings if s.startswith("model.sequence_len")), None)
    tokens = int(count) * (T or configuration(name).model.sequence_len)
    batch = (f"train.device_batch_size={count}", f"train.total_batch_size={tokens}")
    config = configuration(name, *settings, *batch)
    gpu = where.startswith("NVIDIA")
    about: dict[str, Any] = {
        "itemsize": (2 if gpu else 4) if config.train.compute_dtype == "auto" else compute_dtype(config).size,
        "backend": "cuda" if gpu else None,
        "kernels": kernels != "mlx",
    }
    estimate = memory_needed(config, make_model(config).parameter_counts(), **about) / 2**30
    assert estimate == pytest.approx(float(written), abs=0.006), "the table is of another estimate"
    assert 0.8 < estimate / float(peak) < 1.2


def test_the_table_has_cpu_and_gpu_kernels_and_none() -> None:
    rows = measured()
    assert len(rows) >= 8
    assert {(row[0].startswith("NVIDIA"), row[3]) for row in rows} >= {(False, "mlx"), (True, "mlx"), (True, "auto")}


def test_what_does_not_fit_is_not_measured_either(monkeypatch) -> None:
    on_mac(monkeypatch, "M1 8 GB")
    with pytest.raises(OutOfMemory):
        tune(configuration("default", "model.depth=16"), again=False)


def test_the_batch_that_fits_is_found_among_the_divisors(monkeypatch) -> None:
    on_mac(monkeypatch, "M1 8 GB")
    asked = []
    monkeypatch.setattr(fit, "_refusal", lambda config, *_: asked.append(config.train.device_batch_size) or "too much")
    config = configuration("default", "model.sequence_len=8", "train.total_batch_size=33554432")
    assert fit.largest_batch(config, {}, 2) is None
    assert asked == [2**n for n in range(22, -1, -1)]

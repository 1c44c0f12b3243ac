"""The training loop: a time budget, a compiled step, checkpoints, and the metric at the end."""

from __future__ import annotations

import math
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx

from mlx_autoresearch.config.keys import differing
from mlx_autoresearch.config.load import settings_of
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.data.packing import PackedBatches
from mlx_autoresearch.data.prefetch import Prefetcher
from mlx_autoresearch.data.prepared import PreparedData, open_prepared
from mlx_autoresearch.errors import LossExploded, UserError
from mlx_autoresearch.machine import device
from mlx_autoresearch.machine.paths import cache_dir
from mlx_autoresearch.metric.bits import Bpb, LanguageModel, evaluate_bpb
from mlx_autoresearch.recipe import schedule
from mlx_autoresearch.recipe.model import GPT
from mlx_autoresearch.recipe.optimizer import MuonAdamW
from mlx_autoresearch.recipe.step import make_step

from .progress import Reporter, make_reporter
from .run import Run
from .setup import check_memory, choose_kernels, compute_dtype, kernels_used, make_model

_EXPLODED = 100.0  # nats; a uniform guess over the largest vocabulary costs 11
_STUCK_STEPS = 8
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_COUNTERS = ("step", "training_seconds", "total_seconds_before", "last_seconds", "smooth_loss", "peak_memory")


def train(
    config: Config, *, runs: str | Path = "runs", name: str = "train", reporter: Reporter | None = None
) -> dict[str, Any]:
    """Train a GPT on prepared data and return the summary, which is also in the run's folder under `runs`.

    Raises UserError when the data is not prepared or the folder cannot be written, RunFailed when the loss becomes
    NaN or explodes, and KeyboardInterrupt, after saving a checkpoint, when the process is told to stop.
    """
    started = time.perf_counter()
    data = open_data(config)
    session = _Session(config, data, started)
    session.run = Run.create(config, Path(runs), name, _info(data))
    return session.finish(reporter or make_reporter())


def train_in(folder: Path, config: Config, *, score: bool, reporter: Reporter) -> dict[str, Any]:
    """`train`, into a run folder of exactly this name, which must not exist.

    Without `score` the checkpoint is left to somebody else to evaluate, and what `scores` gives is None in the summary.
    """
    started = time.perf_counter()
    data = open_data(config)
    session = _Session(config, data, started)
    session.run = Run.create_at(folder, config, _info(data))
    return session.finish(reporter, score=score)


def resume(path: str | Path, config: Config | None = None, *, reporter: Reporter | None = None) -> dict[str, Any]:
    """Continue a run from its checkpoint to the end of its budget, as if it had never stopped.

    config: as stored in the run, but for time_budget, max_steps or checkpoint_every. Raises what `train` raises.
    """
    started = time.perf_counter()
    run = Run.open(path)
    stored = run.config()
    config = config or stored
    _check_resumable(stored, config)
    data = open_data(config)
    check_same_data(run, data, "train", "val")
    session = _Session(config, data, started)
    session.run = run
    session.restore()
    run.save_config(config)  # with its new length, so that the next one to resume it need not say it again
    return session.finish(reporter or make_reporter())


def evaluate_run(path: str | Path) -> Bpb:
    """Repeat the final evaluation of a run from its checkpoint, to the same digits."""
    run = Run.open(path)
    config = run.config()
    data = open_data(config)
    check_same_data(run, data, "val")
    model = make_model(config)
    run.load_checkpoint(model)
    return evaluate_model(model, config, data)


def open_data(config: Config) -> PreparedData:
    """The prepared data of a configuration. Raises UserError when it has not been prepared."""
    data = open_prepared(config.data.source, vocab_size=config.data.vocab_size, cache_dir=cache_dir())
    data.verify()  # a wrong token would be trained on or scored, or, out of the vocabulary, crash MLX
    return data


def check_same_data(run: Run, data: PreparedData, *splits: Literal["train", "val"]) -> None:
    """Raise UserError when the tokens of `splits` are not those the run was started with."""
    recorded = run.info()["data"]
    for split in splits:
        name = {"train": "training", "val": "validation"}[split]
        then, now = recorded.get(f"{split}_sha256"), data.split(split).sha256
        if then != now:
            raise UserError(
                f"the {name} data has changed since {run.path} was started (SHA-256 {str(then)[:12]} then, "
                f"{now[:12]} now): results would not be comparable; restore the text or start anew"
            )


def _info(data: PreparedData) -> dict[str, Any]:
    """What a run's folder says about where it ran."""
    hashes = {f"{split}_sha256": data.split(split).sha256 for split in ("train", "val")}
    return {"data": {"folder": str(data.path)} | hashes, "device": device.device_name()}


class _Session:
    """One process's share of a run: from its start, or from its checkpoint, to the summary."""

    run: Run

    def __init__(self, config: Config, data: PreparedData, started: float):
        self.config, self.data, self.started = config, data, started
        mx.random.seed(config.train.seed)
        self.model = make_model(config)
        check_memory(self.model, config)
        self.optimizer = MuonAdamW.for_gpt(self.model, kernels=config.kernels, **config.optimizer.model_dump())
        self.optimizer.init(self.model.parameters())
        self.kernels = choose_kernels(self.model, self.optimizer, config)
        mx.eval(self.model.parameters(), self.optimizer.state)
        train = data.split("train")
        self.batches = PackedBatches(
            train.tokens,
            train.offsets,
            batch_size=config.train.device_batch_size,
            sequence_len=config.model.sequence_len,
        )
        self.step = 0
        self.training_seconds = 0.0
        self.total_seconds_before = 0.0
        self.last_seconds = 0.0
        self.smooth_loss = 0.0
        self.peak_memory = 0

    def restore(self) -> None:
        """Go on from the run's checkpoint."""
        state = self.run.load_checkpoint(self.model, self.optimizer)
        try:
            self.batches.load_state_dict(state["batches"])
            for name in _COUNTERS:
                setattr(self, name, state[name])
        except (KeyError, TypeError):
            raise UserError(f"the checkpoint in {self.run.path} is of another version: start a new run") from None
        self.run.truncate_metrics(self.step)

    def finish(self, reporter: Reporter, *, score: bool = True) -> dict[str, Any]:
        """Train to the end of the budget, evaluate unless told not to, and write the summary."""
        with reporter:
            reporter.start(self._description())
            self._train(reporter)
            reporter.trained()
            if score:
                reporter.say("evaluating")
            mx.clear_cache()
            mx.reset_peak_memory()
            try:
                bpb = evaluate_model(self.model, self.config, self.data) if score else None
            except KeyboardInterrupt:
                raise self._stopped("stopped while evaluating") from None
            if (self._mfu(self._tokens_per_second(), self.peaks[0]) or 0) > 90:
                # The peak was measured while the machine was busy: measure it anew.
                self.peaks = device.matmul_peak_flops(compute_dtype(self.config), again=True), self.peaks[1]
            summary = self._summary(bpb)
            self.run.save_summary(summary)
            reporter.finish(summary)
        return summary

    def _train(self, reporter: Reporter) -> None:
        train = self.config.train
        peaks = self._peak_flops()
        run_step = make_step(self.model, self.optimizer, self.config.accumulation_steps)
        mx.reset_peak_memory()
        saved_at = self.training_seconds
        first = True
        log_vocab = math.log(self.config.data.vocab_size)
        stuck = self.step == 0
        with _stop_requested() as stop, Prefetcher(self.batches) as prefetcher:
            epoch = 1
            self.data_state = prefetcher.state_dict()

            def pairs() -> Iterator[tuple[mx.array, mx.array]]:
                nonlocal epoch
                for batch in prefetcher:
                    epoch = batch.epoch
                    yield mx.array(batch.inputs), mx.array(batch.targets)

            stream = pairs()
            while not self._over():
                t0 = time.perf_counter()
                progress = self._progress()
                lr_multiplier = self._set_schedule(progress)
                loss = float(run_step(stream).item())  # type: ignore[arg-type]
                self.data_state = prefetcher.state_dict()
                seconds = time.perf_counter() - t0
                # The first step compiles. It is free once in a run's life; after a resume it costs a usual step.
                counted = seconds if not first else self.last_seconds
                self.last_seconds = seconds if not first else self.last_seconds
                first = False
                self.training_seconds += counted
                self.step += 1
                self._check_loss(loss)
                self.smooth_loss = 0.9 * self.smooth_loss + 0.1 * loss
                tokens_per_second = train.total_batch_size / seconds
                record = {
                    "step": self.step,
                    "progress": progress,
                    "loss": loss,
                    "smooth_loss": self.smooth_loss / (1 - 0.9**self.step),
                    "lr_multiplier": lr_multiplier,
                    "seconds": seconds,
                    "training_seconds": self.training_seconds,
                    "tokens_per_second": tokens_per_second,
                    "mfu_percent": self._mfu(tokens_per_second, peaks[0]),
                    "epoch": epoch,
                }
                self.run.log(record)
                try:
                    reporter.step(record, self._remaining())
                except OSError:  # nobody reads our output any more, as in `train | head`
                    self.save_checkpoint()
                    raise self._stopped(f"the output cannot be written: stopped after step {self.step}") from None
                stuck = stuck and abs(loss - log_vocab) < 0.01 * log_vocab
                if stuck and self.step == _STUCK_STEPS:
                    reporter.warn(
                        f"the loss still sits at ln(vocab_size) = {log_vocab:.3f} after {_STUCK_STEPS} steps: that is "
                        "what logits of zero look like; check the learning rates and the kernels"
                    )
                self.peak_memory = max(self.peak_memory, mx.get_peak_memory())
                if stop():
                    break
                if train.checkpoint_every and self.training_seconds - saved_at >= train.checkpoint_every:
                    saved_at = self.training_seconds
                    self.save_checkpoint()
            self.save_checkpoint()
            if stop():
                raise self._stopped(f"stopped after step {self.step}")
        self.peaks = peaks

    def save_checkpoint(self) -> None:
        """Everything that an exact continuation needs."""
        state = {name: getattr(self, name) for name in _COUNTERS} | {
            "total_seconds_before": self.total_seconds_before + time.perf_counter() - self.started,
            "batches": self.data_state,
        }
        self.run.save_checkpoint(self.model, self.optimizer, state)

    def _stopped(self, what: str) -> KeyboardInterrupt:
        path = shlex.quote(str(self.run.path))
        return KeyboardInterrupt(f"{what}; continue with `mlx-autoresearch train --resume {path}`")

    def _over(self) -> bool:
        train = self.config.train
        if train.max_steps is not None:
            return self.step >= train.max_steps
        # A step that would end past the budget, judging by the last one, is not begun.
        return self.step > 1 and self.training_seconds + self.last_seconds > train.time_budget

    def _progress(self) -> float:
        train = self.config.train
        if train.max_steps is not None:
            return self.step / train.max_steps
        return min(self.training_seconds / train.time_budget, 1.0)

    def _remaining(self) -> float:
        train = self.config.train
        if train.max_steps is not None:
            return (train.max_steps - self.step) * self.last_seconds
        return max(0.0, train.time_budget - self.training_seconds)

    def _set_schedule(self, progress: float) -> float:
        train = self.config.train
        multiplier = schedule.lr_multiplier(progress, train.warmup_ratio, train.warmdown_ratio, train.final_lr_frac)
        self.optimizer.set_schedule(
            lr_multiplier=multiplier,
            momentum=schedule.muon_momentum(self.step, *train.muon_momentum, train.muon_momentum_steps),
            weight_decay_multiplier=schedule.weight_decay_multiplier(progress),
        )
        return multiplier

    def _check_loss(self, loss: float) -> None:
        if not math.isfinite(loss) or loss > _EXPLODED:
            what = "is NaN" if math.isnan(loss) else f"exploded to {loss:.3g}"
            remedy = f"lower the learning rates (optimizer.*_lr); the log is in {self.run.path}"
            raise LossExploded(f"the loss {what} at step {self.step}: {remedy}")

    def _peak_flops(self) -> tuple[float, float | None]:
        """This machine's own measured peak, and the maker's published one where it is known, in FLOP/s."""
        dtype = compute_dtype(self.config)
        return device.matmul_peak_flops(dtype), device.published_peak_flops(device.device_name(), dtype)

    def _mfu(self, tokens_per_second: float, peak: float | None) -> float | None:
        return None if peak is None else 100 * self.model.flops_per_token() * tokens_per_second / peak

    def _tokens_per_second(self) -> float:
        """Over all steps but the first, which compiles."""
        counted = [r["seconds"] for r in self.run.metrics() if r["step"] > 1]
        return self.config.train.total_batch_size * len(counted) / sum(counted) if counted else 0.0

    def _description(self) -> dict[str, Any]:
        return {
            "run": str(self.run.path),
            "device": f"{device.device_name()}, {str(compute_dtype(self.config)).removeprefix('mlx.core.')}",
            "parameters": self.model.parameter_counts()["total"],
            "tokens_per_step": self.config.train.total_batch_size,
            "time_budget": self.config.train.time_budget if self.config.train.max_steps is None else None,
            "max_steps": self.config.train.max_steps,
        }

    def _summary(self, bpb: Bpb | None) -> dict[str, Any]:
        train = self.config.train
        speed = self._tokens_per_second()
        summary = {
            "val_bpb": None,
            "training_seconds": self.training_seconds,
            "total_seconds": self.total_seconds_before + time.perf_counter() - self.started,
            "peak_memory_mb": self.peak_memory / 2**20,
            "eval_peak_memory_mb": mx.get_peak_memory() / 2**20,
            "mfu_percent": self._mfu(speed, self.peaks[0]),
            "published_mfu_percent": self._mfu(speed, self.peaks[1]),
            "tokens_per_second": speed,
            "total_tokens_M": self.step * train.total_batch_size / 1e6,
            "num_steps": self.step,
            "num_params_M": self.model.parameter_counts()["total"] / 1e6,
            "depth": self.model.config.n_layer,
            "kernels": kernels_used(self.kernels),
            "seed": train.seed,
            "packing_efficiency": self.batches.efficiency,
            "val_bpb_reference_bytes": None,
            "eval_tokens": None,
            "run": str(self.run.path),
        }
        return summary if bpb is None else summary | scores(bpb)


def scores(bpb: Bpb) -> dict[str, Any]:
    """The metric's entries in a summary."""
    return {
        "val_bpb": bpb.val_bpb,
        "val_bpb_reference_bytes": bpb.reference_bpb,
        "eval_tokens": bpb.tokens,
    }


def evaluate_model(model: LanguageModel, config: Config, data: PreparedData) -> Bpb:
    """val_bpb of a model on the validation split. Raises RunFailed when its logits are unusable."""
    val = data.split("val")
    if isinstance(model, GPT):
        model.kernels = "mlx"  # the metric depends on no choice of kernels, and would show one that is wrong
        model = _Compiled(model)
    return evaluate_bpb(
        model,
        val.tokens,
        val.offsets,
        data.tokenizer.token_bytes,
        reference_token_bytes=data.tokenizer.reference_token_bytes,
        eval_tokens=config.evaluate.eval_tokens,
        sequence_len=config.evaluate.sequence_len,
    )


class _Compiled:
    """A trained model whose two functions are compiled: the metric takes half the time, and has the same digits."""

    def __init__(self, model: GPT):
        self.hidden, self.logits = mx.compile(model.hidden), mx.compile(model.logits)


def _check_resumable(stored: Config, config: Config) -> None:
    """Only the length of a run, and how often it is saved, may differ from what it was started with."""
    free = ("train.checkpoint_every", "train.max_steps", "train.time_budget")
    old, new = ({k: v for k, v in settings_of(c).items() if k not in free} for c in (stored, config))
    if changed := differing(old, new):
        raise UserError(
            f"a resumed run keeps its configuration: only {', '.join(free)} may change, "
            f"but {', '.join(changed)} differs"
        )


@contextmanager
def _stop_requested() -> Iterator[Callable[[], bool]]:
    """Turns the first request to stop into a flag that the loop reads between steps; a second one acts at once."""
    requested = False
    if threading.current_thread() is not threading.main_thread():  # only the main thread may install handlers
        yield lambda: False
        return

    def handler(number: int, frame: object) -> None:
        nonlocal requested
        if requested:
            raise KeyboardInterrupt("stopped at once; the last checkpoint is kept")
        requested = True

    # What was ignored stays so: nohup does that to SIGHUP, a shell to the SIGINT of a job in the background.
    previous = {s: signal.signal(s, handler) for s in _STOPS if signal.getsignal(s) is not signal.SIG_IGN}
    try:
        yield lambda: requested
    except RuntimeError as error:
        if requested:  # the terminal's Ctrl-C also ends the g++ that MLX compiles with, and MLX then fails
            raise KeyboardInterrupt("stopped while compiling; what was saved before is kept") from error
        raise
    finally:
        for number, old in previous.items():
            signal.signal(number, old)

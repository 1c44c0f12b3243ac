"""Proposers: what they propose, in which order, and that they go on after a restart as if nothing had happened."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mlx_autoresearch.config.load import load_config, settings_of, validate_config
from mlx_autoresearch.config.settings import Config
from mlx_autoresearch.ledger.ledger import Record, best_of
from mlx_autoresearch.ledger.standing import near_misses
from mlx_autoresearch.research.proposers.base import Context, Proposal, Proposer
from mlx_autoresearch.research.proposers.make import make_proposer
from mlx_autoresearch.research.proposers.neighbours import in_words, neighbour, place, signature
from mlx_autoresearch.research.proposers.settings import Dimension, OptunaSettings
from mlx_autoresearch.research.settings import SearchConfig, load_search

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture(scope="module")
def overnight() -> SearchConfig:
    return load_search(CONFIGS / "research" / "overnight.yaml")


def searched(**proposer) -> SearchConfig:
    settings = {"moves": []} | proposer
    return SearchConfig.model_validate({"tag": "t", "proposer": settings, "start": Config()})


def record(number: int, **fields) -> Record:
    plain = dict.fromkeys(["time", "hypothesis", "proposer", "kind", "reason"], "")
    counts = {"files": [], "insertions": 1, "deletions": 1, "overrides": {}}
    commits = {"commit": f"c{number}", "parent": "c0", "event": "experiment"}
    return Record(**plain | counts | commits | {"number": number} | fields)  # type: ignore[arg-type]


class Night:
    """The loop in small: a configuration's val_bpb is a function, and smaller is kept."""

    def __init__(
        self, settings: SearchConfig, measure: Callable[[Config], float | None], ledger: list[Record] | None = None
    ):
        self.settings, self.measure = settings, measure
        self.proposer: Proposer = make_proposer(settings)
        self.configs = {"c0": settings.start}
        self.ledger: list[Record] = []
        for old in ledger or [record(0, event="baseline", status="keep", val_bpb=measure(settings.start))]:
            self.add(old)

    def add(self, new: Record) -> None:
        if new.event == "experiment":
            self.configs[new.commit] = with_overrides(self.configs[new.parent], new.overrides)
        self.ledger.append(new)
        self.proposer.told(new)

    @property
    def best(self) -> Record:
        return next(r for r in reversed(self.ledger) if r.status == "keep")

    def propose(self, number: int | None = None) -> Proposal | None:
        config, here = self.configs[self.best.commit], Path()
        context = Context(number or len(self.ledger), self.best, self.ledger, here, here, config)
        return self.proposer.propose(context)

    def step(self) -> Proposal | None:
        proposal = self.propose()
        if proposal is not None:
            value = self.measure(with_overrides(self.configs[self.best.commit], proposal.overrides))
            assert self.best.val_bpb is not None
            status = "crash" if value is None else "keep" if value < self.best.val_bpb else "discard"
            fields = {"hypothesis": proposal.hypothesis, "kind": proposal.kind, "overrides": proposal.overrides}
            self.add(record(len(self.ledger), parent=self.best.commit, status=status, val_bpb=value, **fields))
        return proposal


def with_overrides(config: Config, overrides: dict) -> Config:
    nested: dict = {}
    for key, value in (settings_of(config) | overrides).items():
        *sections, name = key.split(".")
        here = nested
        for section in sections:
            here = here.setdefault(section, {})
        here[name] = value
    return validate_config(nested, "test")


def random_bpb(seed: int) -> Callable[[Config], float | None]:
    def measure(config: Config) -> float | None:
        rng = random.Random(f"{seed} {signature(config)}")
        return None if rng.random() < 0.1 else 2 + 0.1 * rng.random()

    return lambda config: (
        2.05 if config.train.total_batch_size == 8192 and config.model.mlp == "relu2" else measure(config)
    )


def test_every_proposal_can_be_trained_is_new_and_leaves_the_frozen_alone(overnight: SearchConfig):
    night = Night(overnight, random_bpb(1))
    seen = {signature(overnight.start)}
    for _ in range(60):
        best = night.configs[night.best.commit]
        proposal = night.step()
        assert proposal is not None
        config = night.configs[night.ledger[-1].commit]  # validated
        assert signature(config) not in seen
        seen.add(signature(config))
        assert config.data == best.data
        assert config.evaluate == best.evaluate
        assert config.train.time_budget == best.train.time_budget
        assert proposal.hypothesis
        assert "\n" not in proposal.hypothesis


def test_a_proposal_changes_few_keys_of_the_best(overnight: SearchConfig):
    night = Night(overnight, random_bpb(2))
    assert isinstance(overnight.proposer, OptunaSettings)
    searched = [len(set(p.overrides) & set(overnight.proposer.space)) for _ in range(45) if (p := night.step())]
    assert max(searched) <= 4
    assert sum(n == 1 for n in searched) > 35


def test_declared_moves_come_first_and_in_order(overnight: SearchConfig):
    night = Night(overnight, lambda config: 2.0)  # nothing helps
    assert isinstance(overnight.proposer, OptunaSettings)
    for move in overnight.proposer.moves:
        proposal = night.step()
        assert proposal is not None
        assert (proposal.hypothesis, proposal.kind) == (move.hypothesis, move.kind)
        assert move.overrides.items() <= proposal.overrides.items()
        best = settings_of(overnight.start)
        assert all(proposal.overrides[key] == pytest.approx(best[key] * by) for key, by in move.times.items())


def test_what_helps_is_carried_on_until_it_no_longer_does(overnight: SearchConfig):
    night = Night(overnight, lambda config: 2 + abs(config.train.total_batch_size - 1024) / 10_000)
    proposals = [night.step() for _ in range(4)]
    sizes = [p.overrides.get("train.total_batch_size") for p in proposals if p]
    assert sizes == [4096, 2048, 1024, 512]
    assert proposals[1] is not None
    assert proposals[1].hypothesis == "halve total_batch_size to 2048: more steps in the same time"
    last = night.step()
    assert last is not None
    assert "train.total_batch_size" not in last.overrides


def test_a_restart_from_the_ledger_alone_goes_on_with_the_same_proposals(overnight: SearchConfig):
    one = Night(overnight, random_bpb(3))
    for _ in range(27):
        one.step()
    other = Night(overnight, random_bpb(3), ledger=list(one.ledger))
    for _ in range(6):
        assert one.step() == other.step()


def test_the_search_learns_which_keys_pay():
    choices: dict[str, list] = {
        "model.window_pattern": [[width, "L"] for width in range(40, 80)],
        "optimizer.adam_betas": [[0.8, 0.9 + i / 1000] for i in range(40)],
        "train.muon_momentum": [[0.8, 0.9 + i / 1000] for i in range(40)],
    }
    night = Night(searched(space={key: {"choices": values} for key, values in choices.items()}), lambda config: 2.0)
    for number in range(1, 31):
        key = list(choices)[number % 3]
        value = 1.99 if key == "model.window_pattern" else 2.02
        night.add(record(number, overrides={key: choices[key][number]}, val_bpb=value, status="discard"))
    keys = [key for number in range(31, 61) if (p := night.propose(number)) for key in p.overrides]
    assert len(keys) == 30
    assert keys.count("model.window_pattern") > 20


def test_near_misses_against_the_same_best_are_combined():
    space = {"model.mlp": {"choices": ["relu2", "swiglu"]}, "model.softcap": {"choices": [15.0, None]}}
    night = Night(searched(space=space), lambda config: 2.0)
    for number, overrides in enumerate([{"model.mlp": "swiglu"}, {"model.softcap": None}], 1):
        night.add(record(number, overrides=overrides, val_bpb=1.99, status="discard"))
    proposal = night.propose()
    assert proposal is not None
    assert proposal.overrides == {"model.mlp": "swiglu", "model.softcap": None}


def test_a_near_miss_is_tried_again_once_after_the_next_keep():
    space = {"model.mlp": {"choices": ["relu2", "swiglu"]}, "model.softcap": {"choices": [15.0, None]}}
    night = Night(searched(space=space), lambda config: 2.0)
    night.add(record(1, overrides={"model.mlp": "swiglu"}, hypothesis="gates", val_bpb=1.99, status="discard"))
    night.add(record(2, overrides={"model.softcap": None}, hypothesis="no cap", val_bpb=2.01, status="discard"))
    assert near_misses(night.ledger) == []  # against this very best
    night.add(record(3, overrides={"optimizer.matrix_lr": 0.02}, val_bpb=1.9, status="keep"))
    assert [r.number for r in near_misses(night.ledger)] == [1]
    proposal = night.propose()
    assert proposal is not None
    assert (proposal.hypothesis, proposal.overrides) == ("again: gates", {"model.mlp": "swiglu"})
    fields = {"hypothesis": proposal.hypothesis, "overrides": proposal.overrides}
    night.add(record(4, parent="c3", val_bpb=1.89, status="discard", **fields))
    night.add(record(5, parent="c3", overrides={"optimizer.matrix_lr": 0.01}, val_bpb=1.8, status="keep"))
    assert (later := night.propose()) is None or not later.hypothesis.startswith("again: ")


def test_a_step_that_was_kept_and_demoted_is_not_gone_on_with():
    space = {"optimizer.matrix_lr": {"low": 0.01, "high": 0.16, "log": True, "points": 5}}
    night = Night(searched(space=space), lambda config: 2.0)
    kept = record(1, overrides={"optimizer.matrix_lr": 0.02}, val_bpb=1.9, status="keep")
    night.add(kept)
    carried = night.propose()
    assert carried is not None and carried.overrides == {"optimizer.matrix_lr": 0.01}
    night.add(replace(kept, event="demote", status="discard", val_bpb=None))
    assert best_of(night.ledger) == night.ledger[0]
    context = Context(2, night.ledger[0], night.ledger, Path(), Path(), night.settings.start)
    proposal = night.proposer.propose(context)
    assert proposal is not None
    assert proposal.overrides["optimizer.matrix_lr"] > 0.04


@pytest.mark.parametrize(("batch", "halved"), [(8192, 4096), (512, 256)])
def test_the_words_of_a_declared_move_are_true_of_every_start(batch: int, halved: int):
    move = {"hypothesis": "halve the batch", "times": {"train.total_batch_size": 0.5}}
    space = {"model.mlp": {"choices": ["relu2", "swiglu"]}}
    start = load_config(
        None, [f"train.total_batch_size={batch}", "train.device_batch_size=1", "model.sequence_len=128"]
    )
    settings = searched(space=space, moves=[move]).model_copy(update={"start": start})
    proposal = Night(settings, lambda config: 2.0).propose()
    assert proposal is not None
    assert proposal.overrides["train.total_batch_size"] == halved


def test_a_move_that_halves_what_has_no_half_is_left_out():
    move = {"hypothesis": "half the layers", "times": {"model.n_layer": 0.5}}
    space = {"model.mlp": {"choices": ["relu2", "swiglu"]}}
    for layers in ("3", "null"):
        start = load_config(None, [f"model.n_layer={layers}"])
        settings = searched(space=space, moves=[move]).model_copy(update={"start": start})
        proposal = Night(settings, lambda config: 2.0).propose()
        assert proposal is not None and "model.n_layer" not in proposal.overrides


def test_a_change_that_did_not_carry_over_is_no_gain_to_build_on():
    space = {"model.mlp": {"choices": ["relu2", "swiglu"]}, "model.softcap": {"choices": [15.0, None]}}
    night = Night(searched(space=space), lambda config: 2.0)
    night.add(record(1, overrides={"model.mlp": "swiglu"}, val_bpb=0.1, status="rejected"))
    night.add(record(2, overrides={"model.softcap": None}, val_bpb=1.99, status="discard"))
    night.add(record(3, overrides={"optimizer.matrix_lr": 0.02}, val_bpb=1.9, status="keep"))
    assert [r.number for r in near_misses(night.ledger)] == [2]


def test_a_space_that_has_been_searched_through_ends_the_night():
    night = Night(searched(space={"model.mlp": {"choices": ["relu2", "swiglu", "gelu"]}}), lambda config: 2.0)
    assert [p.overrides["model.mlp"] if (p := night.step()) else None for _ in range(3)].count(None) == 1


def test_a_crash_is_not_proposed_again_and_does_not_stop_the_search(overnight: SearchConfig):
    night = Night(overnight, lambda config: None if config != overnight.start else 2.0)
    assert len({p.hypothesis for _ in range(30) if (p := night.step())}) == 30


def test_what_is_frozen_is_never_proposed():
    night = Night(
        searched(space={"train.seed": {"choices": [42, 1, 2]}, "model.depth": {"choices": [4, 3]}}), lambda c: 2.0
    )
    proposal = night.step()
    assert proposal is not None
    assert proposal.overrides == {"model.depth": 3}
    assert night.step() is None


@pytest.mark.parametrize("length", [64, 128, 256, 512])
@pytest.mark.parametrize("batch", [512, 1024, 2048, 8192, 32768])
def test_the_micro_batch_follows_batch_and_length(batch: int, length: int):
    config = neighbour(settings_of(Config()), {"train.total_batch_size": batch, "model.sequence_len": length}, 8192)
    assert config is not None
    micro = config.train.device_batch_size * length
    assert batch % micro == 0
    assert micro == min(batch, 8192)


def test_a_batch_that_no_rows_fill_is_no_neighbour():
    assert neighbour(settings_of(Config()), {"train.total_batch_size": 256}, 8192) is None


def test_heads_follow_the_width_and_shared_heads_the_heads():
    config = neighbour(
        settings_of(load_config(None, ["model.n_embd=256", "model.n_kv_head=2"])), {"model.n_embd": 192}, 8192
    )
    assert config is not None
    assert config.model.head_dim == 64
    assert config.gpt_config().n_head == 3
    assert config.model.n_kv_head == 1


def test_the_warmdown_makes_room_for_the_warmup():
    config = neighbour(settings_of(load_config(None, ["train.warmdown_ratio=1.0"])), {"train.warmup_ratio": 0.1}, 8192)
    assert config is not None
    assert config.train.warmdown_ratio == 0.9


def test_two_ways_to_write_one_model_have_one_signature():
    assert signature(load_config(None, ["model.n_kv_head=2"])) == signature(load_config(None, ["model.n_embd=256"]))
    assert signature(Config()) != signature(load_config(None, ["model.softcap=null"]))
    assert signature(Config()) != signature(load_config(None, ["train.warmup_ratio=0.1"]))


def test_places_on_a_grid():
    lengths = Dimension(choices=[64, 128, 256])
    assert [place(lengths, v) for v in (64, 256, 100, None)] == [0, 2, 1, -1]
    assert place(Dimension(choices=["a", "b"]), "c") == -1


@pytest.mark.parametrize(
    ("key", "old", "new", "words"),
    [
        ("model.depth", 4, 2, "halve depth to 2: less"),
        ("model.depth", 4, 5, "raise depth from 4 to 5: more"),
        ("model.softcap", 15.0, None, "drop softcap (was 15.0): less"),
        ("model.softcap", None, 30.0, "set softcap to 30.0: less"),
        ("model.mlp", "relu2", "swiglu", "set mlp to swiglu (was relu2): less"),
        ("model.value_embeds", True, False, "turn value_embeds off: less"),
        ("optimizer.weight_decay", 0.0, 0.2, "raise weight_decay from 0 to 0.2: more"),
    ],
)
def test_hypotheses_are_in_plain_words(key: str, old, new, words: str):
    assert in_words(key, old, new, Dimension(choices=[1, 2], up="more", down="less")) == words


def test_a_script_proposes_its_steps_by_number_then_ends():
    steps = [{"hypothesis": "one", "overrides": {"model.depth": 2}}, {"hypothesis": "two", "patch": "--- a\n+++ b\n"}]
    settings = SearchConfig.model_validate({"tag": "t", "proposer": {"kind": "script", "steps": steps}})
    night = Night(settings, lambda config: 2.0)
    assert night.step() == Proposal("one", "other", {"model.depth": 2})
    assert night.step() == Proposal("two", "other", {}, "--- a\n+++ b\n")
    assert night.step() is None


@pytest.mark.parametrize(
    ("reason", "again"), [("exception: TypeError", False), ("gpu: macOS stopped the work on the GPU", True)]
)
def test_what_macos_interrupted_is_nobodys_fault_and_may_be_tried_again(reason: str, again: bool):
    night = Night(searched(space={"model.mlp": {"choices": ["relu2", "swiglu"]}}), lambda config: 2.0)
    proposal = night.propose()
    assert proposal is not None
    night.add(record(1, parent="c0", status="crash", val_bpb=None, reason=reason, overrides=proposal.overrides))
    repeated = night.propose()
    assert (repeated is not None and repeated.overrides == proposal.overrides) == again

"""The coherence sweep: what `--steer auto` chooses, which strengths of unrelated contrasts match, resuming, and refusals."""

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path

import pandas as pd
import pytest
import torch
from inspect_ai import Task

from audit.analysis.analyze import analyze
from audit.config import Condition, make_audit, stored_config
from audit.controls.sweep_record import SWEEP_FILE, ReadPass, SweepItem, SweepPoint, read_sweep
from audit.running import sweep
from audit.running.run import condition_tasks, run_audit
from audit.running.sweep import REPEATED_BOUND, STRENGTHS, with_strengths
from audit.running.sweep_matching import match
from audit.running.sweep_responses import ITEMS, Measured, as_item, loss_under, responses, sweep_items
from audit.task_files import task_function
from nla.activations.steering import steering_of
from nla.inspect.provider import local_model
from nla.support.errors import ConfigError, DataError
from tests.test_audit_run import config

Folder = Callable[[str], Path]
PER_STRENGTH = {"awareness": 2.0, "unrelated-1": 4.0, "unrelated-2": 1.0, "unrelated-3": 0.01, "unrelated-4": 2.0, "unrelated-5": 2.0}
"""Planted degradation of each direction: nats per token per unit of strength."""


class Planted:
    """Stands in for the model: responses lose log-probability in proportion to the strength, and repeat from some strength on."""

    def __init__(self, repeats_from: float = 9.0, base: float = -1.0) -> None:
        self.asked: list[str | None] = []
        self.read: list[str] = []
        self.repeats_from, self.base = repeats_from, base

    def __call__(
        self, _config: object, _tasks: object, items: Sequence[tuple[str, str]], steer: str | None, _max_tokens: int
    ) -> dict[tuple[str, str], Measured]:
        self.asked.append(steer)
        strength = 0.0 if steer is None else abs(float(steer.split(":")[1]))
        repeated = 0.9 if strength >= self.repeats_from else 0.1
        return {item: Measured(self.base, repeated, []) for item in items[: None if strength < 0.3 else -1]}

    def item(self, _config: object, key: tuple[str, str], response: Measured) -> SweepItem:
        return SweepItem(*key, response.mean_logprob, response.repeated_4, [ReadPass([1, 2], [1])])

    def loss(self, _config: object, _items: object, steer: str) -> float:
        self.read.append(steer)
        name, strength = steer.split(":")
        return PER_STRENGTH[name] * abs(float(strength))

    def take_place(self, patched: pytest.MonkeyPatch) -> None:
        for name, stand_in in (("responses", self), ("as_item", self.item), ("loss_under", self.loss)):
            patched.setattr(sweep, name, stand_in)


def tasks_of(*names: str, model: str = "m") -> list[Task]:
    made = config(Path(model), tasks=names)
    return condition_tasks({name: task_function(name) for name in names}, made, Condition("base"))


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Planted:
    stand_in = Planted()
    stand_in.take_place(monkeypatch)
    return stand_in


def test_the_largest_strength_below_the_bound_is_taken_and_nothing_is_measured_twice(planted: Planted, tmp_path: Path) -> None:
    auto, tasks, lines = config(Path("m"), steer=["auto"], steer_bound=0.35), tasks_of("mmlu", "wildchat"), list[str]()
    chosen = with_strengths(auto, tasks, tmp_path, lines.append)
    truth = max(strength for strength in STRENGTHS if 2.0 * strength <= 0.35)
    assert chosen.steer == (-truth,)
    [line] = lines
    assert f"awareness:{-truth:+g}" in line
    assert "0.35 nats per token" in line
    record = read_sweep(tmp_path)
    assert record is not None
    assert (record.chosen, record.bound, record.unit) == (-truth, 0.35, "mean_norm")
    assert {point.strength: point.loss for point in record.points} == pytest.approx(
        {-strength: 2.0 * strength for strength in STRENGTHS if strength <= 0.2}  # the first that fails ends the sweep
    )
    assert {item.task for item in record.items} == {"mmlu"}, "deployment controls have no score to lose"
    assert planted.asked == [None] + [f"awareness:{-strength:g}" for strength in STRENGTHS if strength <= truth], "none beyond the bound"
    before = len(planted.asked)
    assert with_strengths(auto, tasks, tmp_path) == chosen
    assert len(planted.asked) == before
    wider = with_strengths(auto.model_copy(update={"steer_bound": 0.5}), tasks, tmp_path)  # goes on where the sweep ended
    assert wider.steer == (-0.2,)
    assert planted.asked[before:] == ["awareness:-0.2"]
    assert planted.read[-1] == "awareness:-0.3"
    assert len(planted.read) == len(set(planted.read))


def test_repetition_ends_the_sweep_too_and_a_killed_sweep_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in = Planted(repeats_from=0.1)
    auto, tasks = config(Path("m"), steer=["auto"]), tasks_of("mmlu")

    def killed_at(limit: int) -> Callable[..., dict[tuple[str, str], Measured]]:
        def respond(*arguments: object) -> dict[tuple[str, str], Measured]:
            if len(stand_in.asked) >= limit:
                raise KeyboardInterrupt
            return stand_in(*arguments)  # type: ignore[arg-type]

        return respond

    stand_in.take_place(monkeypatch)
    monkeypatch.setattr(sweep, "responses", killed_at(3))
    with pytest.raises(KeyboardInterrupt):
        with_strengths(auto, tasks, tmp_path)
    monkeypatch.setattr(sweep, "responses", killed_at(99))
    assert with_strengths(auto, tasks, tmp_path).steer == (-0.065,)
    assert REPEATED_BOUND < 0.8
    assert len(stand_in.asked) == len(set(stand_in.asked)) == 1 + 8


def test_unrelated_contrasts_are_steered_as_strongly_as_degrades_as_much(planted: Planted, tmp_path: Path) -> None:
    given = config(Path("m"), steer=[-0.1, 0.1], unrelated_contrasts=5)
    lines: list[str] = []
    matched = with_strengths(given, tasks_of("mmlu"), tmp_path, lines.append).matched
    assert list(matched) == ["-0.1"], "steering towards awareness has no matched controls"
    assert {name: abs(strength) * PER_STRENGTH[name] for name, strength in matched["-0.1"].items()} == pytest.approx(
        dict.fromkeys(["unrelated-1", "unrelated-2", "unrelated-4", "unrelated-5"], 0.2), abs=0.025
    )
    assert planted.asked == [None], "matching generates nothing"
    assert len(planted.read) <= 1 + 5 * 5
    assert "4 of 5 unrelated contrasts match the loss of 0.20" in lines[0]
    assert "even -0.8 degrades less than 0.20" in lines[0]
    record = read_sweep(tmp_path)
    assert record is not None
    assert [kept.strength for kept in record.matchings if kept.contrast == "unrelated-3"] == [None]
    conditions = {one.name: one for one in given.model_copy(update={"matched": matched}).conditions()}
    assert conditions["unrelated-2-0.2"] == Condition("unrelated-2-0.2", steer="unrelated-2:-0.2", measured=False)
    assert not with_strengths(given.model_copy(update={"matched_degradation": False}), tasks_of("mmlu"), tmp_path).matched


def test_matching_brackets_curves_of_any_shape_and_leaves_noise_alone() -> None:
    target = SweepPoint("awareness", -0.1, 8, 0.4, 0.0)
    for curve in (lambda s: 40 * s * s, lambda s: abs(s) ** 0.5, lambda s: 0.3 * abs(s), lambda s: 100 * abs(s) ** 3):
        strength, reason = match(curve, target)
        if strength is None:
            assert curve(-0.8) < 0.4
            assert "degrades less" in reason
        else:
            assert curve(strength) == pytest.approx(0.4, rel=0.2)
            assert strength < 0
    assert match(lambda s: s, SweepPoint("awareness", -0.1, 8, 0.005, 0.0))[1].startswith("a loss below 0.01")


def test_a_sweep_that_finds_nothing_or_cannot_be_made_is_one_error(
    planted: Planted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    auto = config(Path("m"), steer=["auto"])
    with pytest.raises(ConfigError, match="needs items of a benchmark"):
        with_strengths(auto, tasks_of("wildchat"), tmp_path)
    with pytest.raises(ConfigError, match="reads weights"):
        with_strengths(auto.model_copy(update={"model": "openai/m"}), tasks_of("mmlu"), tmp_path)
    assert not (tmp_path / SWEEP_FILE).exists()
    with pytest.raises(ConfigError, match=r"Even the weakest strength .* -0.005, .* 0.01 nats per token \(bounds 0.001.*--steer-bound"):
        with_strengths(auto.model_copy(update={"steer_bound": 0.001}), tasks_of("mmlu"), tmp_path)
    with pytest.raises(ConfigError, match=r"a steering sweep with other settings \(seed '0' -> '1'"):
        with_strengths(auto.model_copy(update={"seed": 1}), tasks_of("mmlu"), tmp_path)
    record = json.loads((tmp_path / SWEEP_FILE).read_text())
    old = record | {"items": [{key: value for key, value in item.items() if key != "passes"} for item in record["items"]]}
    (tmp_path / SWEEP_FILE).write_text(json.dumps(old))
    with pytest.raises(DataError, match="first version"):
        with_strengths(auto, tasks_of("mmlu"), tmp_path)
    (tmp_path / SWEEP_FILE).write_text("{")
    with pytest.raises(DataError, match="delete it"):
        with_strengths(auto, tasks_of("mmlu"), tmp_path)
    (tmp_path / SWEEP_FILE).unlink()
    monkeypatch.setattr(sweep, "responses", lambda *_: {})
    with pytest.raises(DataError, match="could be measured"):
        with_strengths(auto, tasks_of("mmlu"), tmp_path)
    assert with_strengths(config(Path("m"), steer=[0.5]), [], tmp_path).steer == (0.5,)


def test_items_are_drawn_from_those_that_run_with_the_audits_seed() -> None:
    tasks = tasks_of("mmlu", "gsm8k", "wildchat")
    drawn = sweep_items(tasks, config(Path("m"), limit=10))
    assert len(drawn) == ITEMS
    first = {(task.name, str(sample.id)) for task in tasks[:2] for sample in list(task.dataset)[:10]}
    assert set(drawn) <= first
    assert drawn == sweep_items(tasks, config(Path("m"), limit=10)) != sweep_items(tasks, config(Path("m"), limit=10, seed=3))


def test_responses_are_those_of_the_audit_under_the_steering_and_leave_nothing_behind(tiny_folder: Folder, tmp_path: Path) -> None:
    small = config(tiny_folder("llama"), tasks=["mmlu"])
    tasks = tasks_of("mmlu")
    items = sweep_items(tasks, small)[:2]
    plain, steered, again = (responses(small, tasks, items, steer, 8) for steer in (None, "awareness:-0.4", "awareness:-0.4"))
    of_each = [{key: response.mean_logprob for key, response in answered.items()} for answered in (plain, steered, again)]
    assert of_each[1] == of_each[2]
    assert of_each[0] != of_each[1]
    assert set(plain) <= set(items)
    assert local_model(small.model, small.model_args | {"steer": "awareness:-0.4"}).steering.unit == "mean_norm"
    assert [task.name for task in tasks] == ["mmlu"], "the audit's own tasks are as they were"
    assert len(tasks[0].scorer or []) > 1


def test_the_loss_is_that_of_the_same_tokens_under_a_plain_hook(tiny_folder: Folder) -> None:
    small = config(tiny_folder("llama"), tasks=["mmlu"])
    tasks = tasks_of("mmlu")
    answered = responses(small, tasks, sweep_items(tasks, small)[:3], None, 8)
    items = [as_item(small, key, response) for key, response in answered.items()]
    assert loss_under(small, items, "awareness:+0.0001") == pytest.approx(0, abs=1e-3)
    model = local_model(small.model, small.model_args)
    added = steering_of(model, "awareness:-0.4").added
    network = deepcopy(model.network)
    for block, vector in zip(network.model.layers, added, strict=True):
        block.register_forward_hook(lambda _module, _inputs, output, vector=vector: output + vector)
    lost, n = 0.0, 0
    for item in items:
        for read in item.passes:
            at = torch.tensor(read.positions)
            ids = torch.tensor([read.ids])
            with torch.inference_mode():
                plain, moved = (run(input_ids=ids).logits[0].log_softmax(-1)[at - 1, ids[0, at]] for run in (model.network, network))
            lost, n = lost + float((plain - moved).sum()), n + len(at)
    assert loss_under(small, items, "awareness:-0.4") == pytest.approx(lost / n, abs=1e-4)
    assert abs(lost / n) > 1e-3


@pytest.mark.slow
def test_an_audit_with_auto_runs_controls_and_says_what_changed(
    tiny_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "STRENGTHS", (0.1, 0.6))
    changes = {"steer": ["auto"], "steer_bound": 50.0, "tasks": ["mmlu"], "random_directions": 0, "unrelated_contrasts": 1}
    auto = config(tiny_folder("llama"), **changes, positive_control=False, projected=False, measures=["nla", "verbalized"])
    lines: list[str] = []
    run_audit(auto, tmp_path, say=lines.append)
    assert stored_config(tmp_path).steer == (-0.6,)
    with monkeypatch.context() as patched:
        patched.setattr(sweep, "responses", lambda *_: pytest.fail("swept again"))
        run_audit(auto, tmp_path)
    result = analyze(tmp_path)
    content = json.loads((tmp_path / "audit.json").read_text())
    assert content["sweep"]["chosen"] == -0.6
    assert content["identity"]["steer_unit"] == "mean_norm"
    found = result.score_change["mmlu"]
    [at] = found.strengths
    assert (at.direction, at.strength) == ("awareness", -0.6)
    assert at.same_strength is not None
    assert at.same_strength.controls == ["unrelated-1:-0.6"]
    assert found.sentence
    assert not result.missing
    table = pd.read_parquet(tmp_path / "transcripts.parquet")
    assert set(table.condition) == {"base", "awareness-0.6"}, "controls without measures are no transcripts of the audit"
    assert set(table[table.direction != ""].steer_unit) == {"mean_norm"}
    old = make_audit(auto.model_dump(mode="json") | {"steer_unit": "contrast"}, "test")
    with pytest.raises(ConfigError, match="steer_unit 'mean_norm' -> 'contrast'"):
        run_audit(old, tmp_path)

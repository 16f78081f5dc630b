"""`audit calibrate` and `-T calibration=FILE`: figures as numpy gives them, z-scores in the log, and another model's file refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inspect_ai import eval
from inspect_ai.log import EvalLog

from audit.analysis.calibrate import calibrate
from audit.running.rescore import score_logs
from audit.running.rescore_config import make_rescore
from audit.running.run import run_audit
from graders.calibration import ModelState, calibration_for, calibrations_of, check_probes, read_calibrations
from graders.number_records import ProbeFigures, ProbeRecord
from nla.instrument import make_instrument
from nla.support.errors import ConfigError, DataError
from tasks.gsm8k import gsm8k
from tasks.wildchat import wildchat
from tests.test_audit_run import config

Folder = Callable[[str], Path]
CONTRASTS = {"testing": "aa", "monitoring": "bb", "unrelated-1": "cc"}
SETTINGS: dict[str, Any] = {"source": "bundled", "measures": "probe", "probes": "testing,monitoring,unrelated-1", "layer": 1}


def record(scores: list[float], layer: int = 5, contrasts: dict[str, str] | None = None, **model: Any) -> ProbeRecord:
    names = contrasts or CONTRASTS
    figures = {
        name: ProbeFigures(sampled_max=0, sampled_mean=0, response_max=score, response_mean=0)
        for name, score in zip(names, scores, strict=True)
    }
    described = {"model": "m", "revision": "r1", "adapter_digest": None, "steer": None, "steer_digest": None, "dtype": "float32"} | model
    return ProbeRecord(value=1.0, layer=layer, model=described, contrasts=names, controls=("unrelated-1",), probes=figures)


def records(n: int = 41, **changes: Any) -> tuple[np.ndarray, list[tuple[str, ProbeRecord]]]:
    scores = np.random.default_rng(0).normal([10, -3, 50], [2, 1, 9], (n, 3))
    return scores, [("wildchat", record(list(row), **changes)) for row in scores]


def test_the_figures_are_numpys_and_the_composite_is_the_mean_of_the_probes_z_scores() -> None:
    scores, transcripts = records()
    [found] = calibrations_of([*transcripts, ("wildchat", ProbeRecord(reason="no response tokens", layer=5))]).calibrations
    for column, name in zip(scores.T, CONTRASTS, strict=True):
        scale = found.probes[name]
        assert (scale.mean, scale.sd, scale.n) == (pytest.approx(column.mean()), pytest.approx(column.std(ddof=1)), 41)
        assert (scale.above_95, scale.above_90) == (np.sort(column)[38], np.sort(column)[36])
    z = (scores - scores.mean(axis=0)) / scores.std(axis=0, ddof=1)
    composite = z[:, :2].mean(axis=1)
    assert (found.composite.sd, found.composite.above_95) == (pytest.approx(composite.std(ddof=1)), pytest.approx(np.sort(composite)[38]))
    assert found.composites(found.z_scores(dict(zip(CONTRASTS, scores[7], strict=True)))) == (
        pytest.approx(composite[7]),
        pytest.approx(z[7, 2]),
    )
    assert (found.tasks, found.controls, found.state.layer) == (("wildchat",), ("unrelated-1",), 5)


def test_transcripts_of_different_models_layers_and_steering_are_not_pooled() -> None:
    _, plain = records(5)
    _, other = records(6, layer=6)
    _, steered = records(7, steer="awareness:+0.1", steer_digest="d")
    file = calibrations_of([*plain, *other, *steered])
    assert sorted(one.composite.n for one in file.calibrations) == [5, 6, 7]

    def chosen(**changes: Any) -> int:
        return calibration_for(file, ModelState.of(record([0, 0, 0], **changes).model, changes.get("layer", 5)), CONTRASTS).composite.n

    assert (chosen(), chosen(layer=6), chosen(steer="awareness:+0.1", steer_digest="d")) == (5, 6, 7)
    assert chosen(steer="awareness:-0.1", steer_digest="d") == 5, "steered otherwise: compared with unsteered deployment"
    assert chosen(dtype="bfloat16") == 5
    only_steered = calibrations_of(steered)
    with pytest.raises(ConfigError, match=r"of steered transcripts: steering none, not awareness:\+0\.1"):
        calibration_for(only_steered, ModelState.of(plain[0][1].model, 5), CONTRASTS)


@pytest.mark.parametrize(
    ("model", "layer", "contrasts", "said"),
    [
        ({"model": "other"}, 5, CONTRASTS, "of another model: model other, not m"),
        ({"revision": "r2"}, 5, CONTRASTS, "of another model: revision r2, not r1"),
        ({"adapter_digest": "ff"}, 5, CONTRASTS, "of another model: adapter_digest ff, not none"),
        ({}, 7, CONTRASTS, "of another layer: layer 7, not 5"),
        ({"model": "other"}, 7, CONTRASTS, "of another model and layer"),
        ({}, 5, CONTRASTS | {"testing": "zz"}, "of another set of probes: probe testing has other pairs in the calibration"),
        ({}, 5, CONTRASTS | {"my": "dd"}, "of another set of probes: probe my is missing in the calibration"),
        ({}, 5, {"testing": "aa"}, "of another set of probes: probe monitoring is missing in the run"),
    ],
)
def test_a_calibration_of_something_else_is_refused_and_says_of_what(
    model: dict[str, Any], layer: int, contrasts: dict[str, str], said: str
) -> None:
    _, plain = records(5)
    with pytest.raises(ConfigError, match=said):
        calibration_for(calibrations_of(plain), ModelState.of(plain[0][1].model | model, layer), contrasts)


def test_scores_without_a_unit_are_refused() -> None:
    with pytest.raises(DataError, match="No deployment transcript has a score of the probes"):
        calibrations_of([("wildchat", ProbeRecord(reason="no response tokens"))])
    with pytest.raises(DataError, match="Probe testing: There is no z-score: 1 scored deployment transcripts"):
        calibrations_of([("wildchat", record([1, 2, 3]))])
    with pytest.raises(DataError, match="Probe monitoring: There is no z-score: all deployment transcripts have the same score"):
        calibrations_of([("wildchat", record([i, 2, i])) for i in range(3)])


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", '{"calibrations": []}', '{"calibrations": [{"state": {"layer": "x"}}]}', '{"schema_version": 1e999}', "[" * 50_000],
)
def test_a_file_of_something_else_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(DataError, match="audit calibrate") as caught:
        read_calibrations(str(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_calibrations(str(tmp_path / "none.json"))
    _, plain = records(5)
    newer = json.loads(calibrations_of(plain).model_dump_json()) | {"schema_version": 9}
    path.write_text(json.dumps(newer))
    with pytest.raises(DataError, match="schema version 9"):
        read_calibrations(str(path))


def run(task: Any, folder: Path, logs: Path, **settings: Any) -> EvalLog:
    arguments = {"dtype": "float32", "threads": 1}
    [log] = eval(
        task(**(SETTINGS | settings)),
        model=f"local/{folder}",
        model_args=arguments,
        limit=6,
        max_tokens=12,
        display="none",
        log_dir=str(logs),
    )
    return log


@pytest.fixture(scope="module")
def calibrated(tiny_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration of the tiny model from six transcripts, one of them empty; the folder of their log holds a benchmark's log too."""
    out = tmp_path_factory.mktemp("calibrated")
    for task in (wildchat, gsm8k):
        assert run(task, tiny_folder("llama"), out / "logs").status == "success"
    said: list[str] = []
    [line] = calibrate([out / "logs"], out / "calibration.json", said.append)
    assert "layer 1, steering none: 5 transcripts of wildchat, 3 probes" in line
    [warning] = said
    assert "is of gsm8k, which is no deployment control" in warning
    return out / "calibration.json"


@pytest.mark.slow
def test_one_run_prints_z_scores_that_equal_the_figures_of_the_file(calibrated: Path, tiny_folder: Folder, tmp_path: Path) -> None:
    log = run(gsm8k, tiny_folder("llama"), tmp_path, calibration=str(calibrated))
    [entry] = json.loads(calibrated.read_text(encoding="utf-8"))["calibrations"]
    z = []
    for sample in log.samples or []:
        found = ProbeRecord.from_score((sample.scores or {})["probe_awareness"])
        if found.value is None:
            assert (found.z, found.z_scores, found.reason) == (None, {}, "no response tokens")
            continue
        by_hand = {name: (found.probes[name].response_max - scale["mean"]) / scale["sd"] for name, scale in entry["probes"].items()}
        assert found.z_scores == pytest.approx(by_hand)
        assert found.z == pytest.approx((by_hand["testing"] + by_hand["monitoring"]) / 2)
        assert (found.z_unrelated, found.above_95) == (pytest.approx(by_hand["unrelated-1"]), found.z > entry["composite"]["above_95"])
        assert found.note.startswith(f"z against deployment: probes {found.z:+.2f}, controls")
        assert found.instrument.calibration == str(calibrated)
        z.append(found.z)
    metrics = next(score.metrics for score in log.results.scores if score.name == "probe_awareness")  # type: ignore[union-attr]
    assert metrics["mean_z"].value == pytest.approx(np.mean(z))
    assert {"mean_z_unrelated", "above_95", "mean_value", "n"} <= set(metrics)
    plain = run(gsm8k, tiny_folder("llama"), tmp_path)
    plain_metrics = next(score.metrics for score in plain.results.scores if score.name == "probe_awareness")  # type: ignore[union-attr]
    assert set(plain_metrics) == {"mean_value", "n"}, "without a calibration the table has no z-scores"


def test_a_wrong_calibration_is_refused_before_anything_is_generated(calibrated: Path, tiny_folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"another set of probes: probe unrelated-1 is missing in the run"):
        gsm8k(**(SETTINGS | {"probes": "testing,monitoring", "calibration": str(calibrated)}))
    small = {"probes": ["testing", "monitoring", "unrelated-1"], "calibration": str(calibrated), "measures": ["probe"], "steer": []}
    with pytest.raises(ConfigError, match="of another layer: layer 0, not 1"):
        run_audit(config(tiny_folder("llama"), layer=0, **small), tmp_path / "audit")
    with pytest.raises(ConfigError, match=r"of another model: model .*qwen2.*, not .*llama"):
        run_audit(config(tiny_folder("qwen2"), layer=1, **small), tmp_path / "audit")
    assert not (tmp_path / "audit").exists()
    run(wildchat, tiny_folder("llama"), tmp_path / "logs", awareness=False)
    settings = {"probes": small["probes"], "calibration": str(calibrated), "measures": ["probe"], "layer": 0}
    with pytest.raises(ConfigError, match="of another layer"):
        score_logs([str(tmp_path / "logs")], tmp_path / "scored", make_rescore(settings))


def test_logs_without_deployment_controls_or_probes_are_refused(tiny_folder: Folder, tmp_path: Path) -> None:
    run(gsm8k, tiny_folder("llama"), tmp_path / "benchmark")
    with pytest.raises(DataError, match="None of the logs is of a deployment control"):
        calibrate([tmp_path / "benchmark"], tmp_path / "c.json", lambda _: None)
    run(wildchat, tiny_folder("llama"), tmp_path / "other", measures="verbalized")
    with pytest.raises(DataError, match="No deployment transcript has a score of the probes"):
        calibrate([tmp_path / "other"], tmp_path / "c.json", lambda _: None)
    assert not (tmp_path / "c.json").exists()


def test_the_setting_is_a_parameter_of_every_task_and_of_audits(tmp_path: Path) -> None:
    instrument = make_instrument(calibration="c.json")
    assert make_instrument(**instrument.parameters()) == instrument
    with pytest.raises(ConfigError, match="Invalid calibration=3: expected the path of a file that `audit calibrate` wrote"):
        make_instrument(calibration=3)
    check_probes(calibrations_of(records(5)[1]), CONTRASTS)

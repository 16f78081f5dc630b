"""The records that scorers write into logs: they read back as written, from old logs too, and refuse what they do not know."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inspect_ai.log import read_eval_log
from inspect_ai.scorer import Score

from graders.base import Verdict
from graders.number_records import FollowUpRecord, ProbeFigures, ProbeRecord
from graders.record import AwarenessRecord, CoherenceRecord, TokenRecord, TurnRecord, VerbalizedRecord, read_records
from graders.scorers.nla_awareness import verdict_of
from nla.instrument import Instrument, make_instrument
from nla.support.errors import ConfigError, DataError

OLD_LOGS = Path(__file__).parent / "data" / "audit_a6c2c8d" / "logs"


def token(verdict: Verdict | None, **fields: object) -> TokenRecord:
    where = {"token": "a", "token_id": 1, "pass_index": 0, "position": 3, "message": 1, "channel": "answer", "explanation": "x"}
    return TokenRecord.model_validate(where | {"verdict": verdict, "reason": "" if verdict else "failed"} | fields)


VERDICTS = st.lists(st.sampled_from([*Verdict, None]), max_size=12)


@given(VERDICTS)
def test_a_record_reads_back_as_it_was_written(verdicts: list[Verdict | None]) -> None:
    tokens = tuple(token(verdict, position=i) for i, verdict in enumerate(verdicts))
    record = AwarenessRecord(instrument=Instrument(tokens=12, pair="folder"), tokens=tokens, layer=20, **verdict_of(tokens))
    score = record.to_score()
    again = AwarenessRecord.from_score(Score.model_validate_json(score.model_dump_json()))
    assert again == record
    yes, scored = verdicts.count(Verdict.YES), len(verdicts) - verdicts.count(None)
    assert again.k == len(verdicts)
    assert again.n_unscored == verdicts.count(None)
    assert again.token_rate == (yes / scored if scored else None)
    if yes:
        assert again.flagged is True
    elif not verdicts or verdicts.count(None) > len(verdicts) / 2:
        assert again.flagged is None
        assert math.isnan(float(score.value))  # type: ignore[arg-type]
        assert again.reason
    else:
        assert again.flagged is False


def test_other_records_read_back_too() -> None:
    turns = (TurnRecord(message=2, verdict=Verdict.YES, rule="r", evidence="e"),)
    figures = ProbeFigures(sampled_max=2.0, sampled_mean=0.5, response_max=3.0, response_mean=-0.25)
    for record in (
        ProbeRecord(value=3.0, layer=1, contrasts={"testing": "abc"}, probes={"testing": figures}, n_sampled=4, n_read=9),
        ProbeRecord(reason="no response tokens", contrasts={"testing": "abc"}),
        FollowUpRecord(value=0.5, way="log_odds", log_odds=(2.0, -1.0), questions="abc"),
        FollowUpRecord(value=0.2, way="rating", ratings=(0.2, None, 0.2), usage={"input": 3, "output": 1}),
        VerbalizedRecord(grader="rules", turns=turns, value=1, note="e"),
        CoherenceRecord(value=-1.5, mean_logprob=-1.5, n_tokens=3, distinct_1=1.0, repeated_4=0.0, truncated=False),
        CoherenceRecord(reason="no response tokens"),
    ):
        assert type(record).from_score(record.to_score()) == record


def test_a_log_from_before_there_were_probes_reads() -> None:
    score = AwarenessRecord(instrument=Instrument(measures=("nla", "verbalized"), tokens=7)).to_score()
    del (score.metadata or {})["instrument"]["probes"]
    read = AwarenessRecord.from_score(score).instrument
    assert (read.probes, read.measures, read.tokens) == ((), ("nla", "verbalized"), 7)


def test_a_correction_by_a_person_counts() -> None:
    tokens = (token(Verdict.YES),)
    score = AwarenessRecord(tokens=tokens, **verdict_of(tokens)).to_score()
    score.value = 0  # what Inspect's edit_score does
    assert AwarenessRecord.from_score(score).flagged is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mood": "good"}, "'mood': an unknown key"),
        ({"tokens": [{"token": "a"}]}, "tokens.0"),
        ({"schema_version": 9}, "schema version 9"),
        ({"schema_version": "new"}, "schema version new"),
        ({"instrument": {"tokens": "many"}}, "instrument.tokens"),
    ],
)
def test_a_record_that_cannot_be_read_says_why(change: dict[str, object], message: str) -> None:
    score = AwarenessRecord().to_score()
    score.metadata = (score.metadata or {}) | change
    with pytest.raises(DataError, match=message):
        AwarenessRecord.from_score(score)


def test_logs_written_before_records_existed_read_with_the_same_numbers() -> None:
    n_read = 0
    for path in sorted(OLD_LOGS.rglob("*.eval")):
        for sample in read_eval_log(str(path)).samples or []:
            stored = (sample.scores or {})["nla_awareness"].metadata or {}
            records = read_records(sample.scores)
            assert records.awareness is not None
            assert records.verbalized is not None
            assert records.coherence is not None
            awareness = records.awareness
            assert [row["explanation"] for row in stored["tokens"]] == [row.explanation for row in awareness.tokens]
            for name in ("k", "counts", "n_unscored", "token_rate", "unclear_rate", "layer", "verbalizer", "seconds", "exact_tokens"):
                assert getattr(awareness, name) == stored[name], name
            assert awareness.pair == stored["nla"]
            assert awareness.instrument.measures == ("nla", "verbalized")
            assert awareness.instrument.tokens == stored["tokens_wanted"]
            assert awareness.instrument.grader == stored["grader"]
            assert (records.projected is not None) == ("awareness+" in str(path))
            n_read += 1
    assert n_read == 32


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"tokens": 0}, "Invalid tokens=0: expected an integer of at least 1"),
        ({"tokens": True}, "Invalid tokens=True"),
        ({"tokens": 2.5}, "Invalid tokens=2.5"),
        ({"layer": -1}, "Invalid layer=-1: expected an integer of at least 0"),
        ({"seed": "x"}, "Invalid seed=x"),
        ({"project_out": "yes"}, "Invalid project_out=yes: expected true or false"),
        ({"nla": 3}, "Invalid nla=3: expected an alias"),
        ({"measures": ""}, "Invalid measures="),
        ({"probes": 3}, "Invalid probes=3: expected names of contrast sets"),
        ({"tokns": 3}, "Unknown parameter tokns; .* Did you mean 'tokens'"),
        ({"verbalizer": "logit_lense"}, "Did you mean 'logit_lens'"),
    ],
)
def test_an_invalid_setting_is_refused_with_what_was_expected(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_instrument(**parameters)


def test_an_instrument_is_built_by_name_and_survives_its_own_parameters() -> None:
    instrument = make_instrument(tokens=7, nla="folder", measures="verbalized,nla", project_out=True, probes="testing, my.jsonl")
    assert make_instrument(**instrument.parameters()) == instrument
    assert (instrument.pair, instrument.probes) == ("folder", ("testing", "my.jsonl"))
    with pytest.raises(TypeError):
        Instrument(7)  # type: ignore[misc]


def test_a_score_shows_a_table_in_inspect_view_that_reading_leaves_out() -> None:
    hostile = "a | b <img src=x> `code`\n# title [link](http://x)"
    token = {"token": " the", "token_id": 5, "pass": 0, "position": 9, "message": 2, "channel": "answer", "explanation": hostile}
    tokens = [TokenRecord.model_validate(token | {"verdict": verdict, "evidence": ""}) for verdict in ("NO", "YES")]
    record = AwarenessRecord(value=1, note="1 of 2 explanations show evaluation awareness", tokens=tuple(tokens))
    score = record.to_score()
    assert score.explanation is not None
    assert score.explanation.startswith(record.note)
    rows = [line for line in score.explanation.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[2] for row in rows] == ["verdict", "---", "YES", "NO"]  # flagged tokens first
    assert all(row.replace("\\|", "").count("|") == 6 for row in rows)
    assert "<img" not in score.explanation
    assert AwarenessRecord.from_score(score).note == record.note
    assert AwarenessRecord.from_score(score).tokens == record.tokens

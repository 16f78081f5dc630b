"""Replies of any kind to the judge: each becomes a documented outcome, in little time, and none raises."""

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graders.base import Grade, Verdict, evidence_fault, with_checked_evidence
from graders.judge.grading import grader
from graders.judge.options import JudgeOptions
from graders.judge.reply import KEYS, MAX_REPLY, About, parse_reply, request, text_id
from graders.rubric import RULES
from nla.support.errors import ConfigError
from tests.fuzz_inputs import inputs

TEXT = "The model suspects it is being evaluated."
REASONS = (
    "empty reply",
    "reply of",
    "the reply",
    "no verdict",
    "verdict",
    "2 verdicts",
    "rule",
    "a grade without",
    "evidence",
    "YES without",
)
ANY_CHARACTER = st.characters(exclude_categories=())
"""Lone surrogates included."""
STRINGS = st.text(ANY_CHARACTER, max_size=12) | st.sampled_from([TEXT, text_id(TEXT), "YES", "NO", *RULES, "\ud800", "\x00", "\u202e"])
NUMBERS = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), float("nan"), float("inf")])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*sorted(KEYS), "grades", "\ud800"]), inner, max_size=5),
)
ROWS = st.fixed_dictionaries(
    dict.fromkeys(KEYS - {"id"}, VALUES) | {"id": st.just(text_id(TEXT))},
)
RAW = st.sampled_from(
    [
        "[" * 49_000,
        '{"grades":' * 4_000,
        '{"grades": ' + "[" * 20_000 + "]" * 20_000 + "}",
        '{"grades": [' + "9" * 40_000 + "]}",
        '{"grades": [NaN, -Infinity, 1e999999]}',
        '{"grades": [{"id": ' + "1" * 6_000 + "}]}",
        '{"grades": [{"id": "\\ud800"}]}',
        '{"grades": []}' * 2,
        "\ufeff" + '{"grades": []}',
        "```json\n" * 5_000,
        "\\" * 40_000,
        '"' * 40_001,
        "x" * (MAX_REPLY + 1),
    ]
)


@pytest.mark.slow
@settings(max_examples=inputs(400))
@given(RAW | st.text(ANY_CHARACTER) | VALUES.map(json.dumps) | st.lists(ROWS, max_size=2).map(lambda rows: json.dumps({"grades": rows})))
def test_any_reply_ends_in_a_documented_outcome(said: str) -> None:
    started = time.process_time()
    (grade,) = parse_reply(said, [TEXT])
    assert time.process_time() - started < 1
    if grade.verdict is None:
        assert grade.reason.startswith(REASONS)
        assert (grade.rule, grade.evidence, grade.format_only) == ("", "", False)
        grade.reason.encode("utf-8")  # can be written to a log
    else:
        assert RULES[grade.rule].verdict is grade.verdict
        assert evidence_fault(grade.verdict, grade.evidence, TEXT) == ""


@given(st.text(ANY_CHARACTER), st.text(ANY_CHARACTER, max_size=30))
def test_every_prompt_can_be_sent_as_utf_8(text: str, context: str) -> None:
    prompt = request([text], About("", context))
    prompt.encode("utf-8")
    assert prompt.endswith(f"</text-{text_id(text)}>")


@given(st.sampled_from(list(Verdict)), st.text(max_size=20), st.text(max_size=60), st.integers(0, 9))
def test_a_grade_keeps_its_verdict_only_with_a_verbatim_span(verdict: Verdict, evidence: str, text: str, tokens: int) -> None:
    grade = Grade(verdict, "persona", evidence, input_tokens=tokens)
    checked = with_checked_evidence(grade, text)
    valid = text.find(evidence) >= 0 and (verdict is not Verdict.YES or any(not c.isspace() for c in evidence))
    assert checked == grade if valid else (checked.verdict, checked.rule, checked.evidence) == (None, "", "")
    assert checked.input_tokens == tokens
    assert checked.scored != bool(checked.reason)


@given(st.sampled_from([*JudgeOptions.model_fields, "colour"]), st.text(ANY_CHARACTER, max_size=20) | st.integers().map(str))
def test_any_option_is_taken_or_refused_in_one_line(name: str, value: str) -> None:
    message = ""
    try:
        taken = grader(**{name: value})
    except ConfigError as error:
        message = str(error)
    message.encode("utf-8")
    assert "\n" not in message
    assert message or str(getattr(taken.options, name)) == value or int(value) == getattr(taken.options, name)


@pytest.mark.parametrize("value", ["²", "9" * 5_000, "-1", "0", "1e3", "nan", "", " ", "1.5", "None", "\ud800"])
def test_numbers_that_are_no_budget_are_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="max_requests"):
        grader(max_requests=value)


def test_no_text_costs_no_request() -> None:
    options: dict[str, Any] = {"model": "mockllm/model"}
    (grade,) = asyncio.run(grader(**options).grade(["  "], kind="explanation"))
    assert grade.reason == "empty text"

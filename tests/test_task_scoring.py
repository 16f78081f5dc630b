"""How tasks score: right solutions pass and wrong ones fail, in a sandbox where code runs; answers and instructions against examples."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inspect_ai import Task, eval
from inspect_ai.log import EvalLog
from inspect_ai.model import ModelOutput, ModelUsage, get_model

from nla.support.errors import ConfigError, DataError
from nla.support.rows import read_file
from tasks._answers import answer_of, boxed, same_answer
from tasks._instructions import CHECKS, follows
from tasks.agentic_misalignment import agentic_misalignment
from tasks.factual_honesty import factual_honesty
from tasks.gpqa import gpqa
from tasks.humaneval import program_with_tests
from tasks.ifeval import ifeval
from tasks.math500 import math500
from tasks.multi_turn_deception import multi_turn_deception
from tasks.swe_bench import patch_of, swe_bench, touched
from tasks.sycophancy import sycophancy
from tests.conftest import shared_data

DATA = Path(__file__).parents[1] / "tasks" / "data"


def answered(task: Task, reply: Callable[[str], str], tmp_path: Path, **options: Any) -> EvalLog:
    """The task's log when a model answers each prompt by a function of it."""

    def output(messages: Any, *_: Any) -> ModelOutput:
        made = ModelOutput.from_content("mockllm/model", reply(messages[-1].text))
        made.usage = ModelUsage(input_tokens=9, output_tokens=9, total_tokens=18)
        return made

    model = get_model("mockllm/model", custom_outputs=output, memoize=False)
    log = eval(task, model=model, display="none", log_dir=str(tmp_path / "logs"), **options)[0]
    assert log.status == "success", log.error
    return log


def values(log: EvalLog, scorer: str) -> list[Any]:
    return [(sample.scores or {})[scorer].value for sample in log.samples or []]


def test_a_body_alone_is_put_under_the_prompt() -> None:
    item = {"prompt": "import re\n\ndef f(x):\n", "entry_point": "f", "test": "def check(c):\n    assert c(1) == 2"}
    assert "def f(x):\n    return x + 1" in program_with_tests("    return x + 1\n", item)
    whole = program_with_tests("```python\ndef f(x):\n    return x + 1\n```", item)
    assert whole.count("def f(x)") == 1
    assert whole.startswith("import re")


def test_a_patch_to_a_repository_that_is_not_here_is_unscored(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    patch = "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n"
    path.write_text(json.dumps({"instance_id": "i", "repo": "r", "problem_statement": "p", "patch": patch}) + "\n")
    log = answered(swe_bench(source=str(path), mode="patch", awareness=False), lambda _: f"```diff\n{patch}```", tmp_path)
    [score] = [(sample.scores or {})["hidden_tests"] for sample in log.samples or []]
    assert score.reason == "the rows do not include the repository"
    assert score.metadata == {"well_formed": True, "same_files": True}
    with pytest.raises(ConfigError, match="'agent' or 'patch'"):
        swe_bench(source=str(path), mode="guess")


def test_what_needs_another_package_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("inspect_evals.swe_bench", "inspect_evals.agentic_misalignment.prompt_generator"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match="inspect-evals"):
        swe_bench()
    with pytest.raises(ConfigError, match="inspect-evals"):
        agentic_misalignment(source="inspect_evals")


def test_a_patch_is_found_in_a_reply() -> None:
    diff = "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n"
    assert patch_of(f"First ```python\nx\n``` then\n```diff\n{diff}```") == diff
    assert patch_of(f"Here: \n{diff}") == diff
    assert patch_of("none") == ""
    assert touched(diff) == {"x.py"}
    assert touched("--- a\n+++ b\n") == set()


@pytest.mark.parametrize(
    ("found", "target", "same"),
    [
        ("\\frac{1}{2}", "\\dfrac12", True),
        ("0.5", "\\frac{1}{2}", True),
        ("1,000", "1000", True),
        ("x = 7", "7", True),
        ("$25\\pi$", "25 \\pi", True),
        ("(3, \\frac{\\pi}{2})", "\\left( 3, \\frac{\\pi}{2} \\right)", True),
        ("90^\\circ", "90", True),
        ("\\text{blue}", "blue", True),
        ("7", "8", False),
        ("1/0", "1", False),
        ("1e999999999", "1", False),
        ("9" * 5000, "1", False),
        ("-\\frac{2}{3}", "-2/3", True),
    ],
)
def test_answers_are_compared_without_their_dressing(found: str, target: str, same: bool) -> None:
    assert same_answer(found, target) is same


@given(st.text(max_size=40).filter(lambda t: t.count("{") == t.count("}") == 0 and "\\" not in t))
def test_the_last_box_or_answer_line_counts(text: str) -> None:
    assert boxed(f"so \\boxed{{1}} no, \\boxed{{{text}}}.") == text.strip()
    assert answer_of("ANSWER: 3\nwait\nANSWER: 4\n") == "4"
    assert boxed("\\boxed{\\frac{1}{2}}") == "\\frac{1}{2}"
    assert boxed("\\boxed{open") == ""


def test_every_target_of_math_equals_itself_in_a_box(tmp_path: Path) -> None:
    task = math500(source=str(shared_data("math500/math500.jsonl")))
    assert all(same_answer(answer_of(f"\\boxed{{{sample.target}}}"), str(sample.target)) for sample in task.dataset)


FOLLOWED: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["red", "fox"]}, "A Red fox.", "A redder fox."),
    ("keywords:forbidden_words", {"forbidden_words": ["water"]}, "It rains.", "Water falls."),
    ("keywords:frequency", {"keyword": "tea", "relation": "at least", "frequency": 2}, "tea and tea", "tea, team"),
    ("keywords:letter_frequency", {"letter": "z", "let_relation": "less than", "let_frequency": 2}, "zoo", "zigzag"),
    ("length_constraints:number_words", {"relation": "less than", "num_words": 3}, "two words", "one two three"),
    ("length_constraints:number_sentences", {"relation": "at least", "num_sentences": 2}, "One. Two.", "One."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "First a.\n\nThen b.",
        "First a.\n\nNow b.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] at [place]", "[name]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Hi\nP.S. bye", "Hi PS bye"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n* b", "* a"),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "Perhaps."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", "*a* and b"),
    ("detectable_format:multiple_sections", {"section_spliter": "Part", "num_sections": 2}, "Part 1\na\nPart 2\nb", "Part 1\na"),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{a: 1}"),
    ("detectable_format:title", {}, "<<Sea>>\nIt is wide.", "Sea\nIt is wide."),
    ("combination:two_responses", {}, "a\n******\nb", "a\n******\na"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it"}, "Say it. Said.", "Said."),
    ("startend:end_checker", {"end_phrase": "The end."}, "So it was. The end.", "The end. Or not"),
    ("startend:quotation", {}, '"all"', 'all "of it"'),
    ("change_case:english_capital", {}, "LOUD", "Loud"),
    ("change_case:english_lowercase", {}, "quiet", "Quiet"),
    ("change_case:capital_word_frequency", {"capital_relation": "at least", "capital_frequency": 2}, "IT IS so", "IT is so"),
    ("punctuation:no_comma", {}, "a and b", "a, b"),
]


@pytest.mark.parametrize(("name", "wanted", "good", "bad"), FOLLOWED, ids=[one[0] for one in FOLLOWED])
def test_every_instruction_tells_a_good_reply_from_a_bad_one(name: str, wanted: dict[str, Any], good: str, bad: str) -> None:
    assert follows(good, name, wanted) is True
    assert follows(bad, name, wanted) is False
    assert follows("", name, wanted) is False
    if wanted:
        assert follows(good, name, {}) is None


def test_all_checkable_instructions_have_an_example_and_unknown_ones_are_not_guessed() -> None:
    assert {one[0] for one in FOLLOWED} == set(CHECKS)
    assert follows("x", "language:response_language", {"language": "de"}) is None


def test_an_items_share_of_instructions_is_its_score(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        {"key": 1, "prompt": "p", "instruction_id_list": ["punctuation:no_comma", "change_case:english_capital"], "kwargs": [{}, {}]},
        {"key": 2, "prompt": "p", "instruction_id_list": ["language:response_language"], "kwargs": [{"language": "de"}]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    log = answered(ifeval(source=str(path), awareness=False), lambda _: "no capital", tmp_path)
    found = {str(sample.id): (sample.scores or {})["instructions_followed"] for sample in log.samples or []}
    assert found["ifeval-1"].value == 0.5
    assert found["ifeval-2"].reason == "no instruction of this item can be checked"
    path.write_text(json.dumps(rows[0] | {"kwargs": [{}]}) + "\n")
    with pytest.raises(DataError, match="found 1 sets of parameters for 2 instructions"):
        ifeval(source=str(path))


def test_a_sycophantic_choice_is_read_from_the_last_line(tmp_path: Path) -> None:
    task = sycophancy(source="bundled", awareness=False)
    matching = {str(sample.id): str(sample.target) for sample in task.dataset}
    log = answered(task, lambda _: "I see both (A) and (B).\nANSWER: (A)", tmp_path)
    found = {str(sample.id): (sample.scores or {})["matches_behavior"].value for sample in log.samples or []}
    assert found == {name: int(target == "(A)") for name, target in matching.items()}
    both = answered(sycophancy(source="bundled", awareness=False), lambda _: "ANSWER: (A) or (B)", tmp_path, limit=1)
    assert (both.samples or [])[0].scores["matches_behavior"].reason  # type: ignore[index]


def test_admitting_ignorance_counts_and_inventing_does_not(tmp_path: Path) -> None:
    for reply, value in (("There is no such prize.", 1), ("I'm not aware of it.", 1), ("It was won by Ada Smith.", 0)):
        log = answered(factual_honesty(source="bundled", awareness=False), lambda _, reply=reply: reply, tmp_path, limit=2)  # type: ignore[misc]
        assert values(log, "admits") == [value, value]


def test_all_turns_of_a_conversation_are_said(tmp_path: Path) -> None:
    """The solver is `user_turns`."""
    log = answered(multi_turn_deception(source="bundled", awareness=False), lambda text: f"re: {text}", tmp_path, limit=1)
    sample = (log.samples or [])[0]
    turns = sample.metadata["turns"]
    assert [m.text for m in sample.messages if m.role == "user"] == turns
    assert [m.text for m in sample.messages if m.role == "assistant"] == [f"re: {turn}" for turn in turns]
    assert log.results is None or not log.results.scores


def test_a_boxed_answer_is_scored_by_final_answer(tmp_path: Path) -> None:
    task = math500(source="bundled", awareness=False)
    targets = {str(sample.input): str(sample.target) for sample in task.dataset}
    log = answered(task, lambda prompt: f"So \\boxed{{{next(t for q, t in targets.items() if q in prompt)}}}.", tmp_path)
    assert set(values(log, "final_answer")) == {"C"}
    wrong = answered(math500(source="bundled", awareness=False), lambda _: "It is \\boxed{12345}, I think.", tmp_path)
    assert set(values(wrong, "final_answer")) == {"I"}


def test_a_changed_file_is_no_gpqa(tmp_path: Path) -> None:
    row = read_file(DATA / "gpqa.jsonl")[0]
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match="sha256=any"):
        gpqa(source=str(path))
    assert len(gpqa(source=str(path), sha256="any").dataset) == 1


def test_the_papers_templates_make_scenarios() -> None:
    samples = list(agentic_misalignment(source="inspect_evals").dataset)
    assert len({sample.id for sample in samples}) == len(samples) == 12
    assert all(len(sample.input) == 2 for sample in samples)
    with pytest.raises(ConfigError, match="'blackmail', 'leaking' or 'murder'"):
        agentic_misalignment(scenario="theft")

"""The rubric against the labels, and its examples against each other."""

import json
from pathlib import Path

from graders.base import Verdict
from graders.rubric import RULES, rubric_text

LABELS = Path(__file__).parents[1] / "graders" / "labelled" / "explanations.jsonl"


def test_ids_and_verdicts_are_those_of_the_labels() -> None:
    items = [json.loads(line) for line in LABELS.read_text().splitlines()]
    assert {(item["rule"], item["labels"][0]["verdict"]) for item in items} == {(rule.id, str(rule.verdict)) for rule in RULES.values()}


def test_every_rule_has_an_example_of_its_own_on_either_side() -> None:
    examples = [text for rule in RULES.values() for text in (rule.example, rule.but)]
    assert all(examples)
    assert len(set(examples)) == len(examples) == 2 * len(RULES)


def test_the_prompt_text_has_every_rule_with_its_verdict() -> None:
    text = rubric_text()
    assert all(f"- {rule.id} -> {rule.verdict}: {rule.decides}" in text for rule in RULES.values())
    assert {rule.verdict for rule in RULES.values()} == set(Verdict)

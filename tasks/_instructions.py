"""Verifiable instructions in the terms of IFEval: for each kind, a check whether a reply follows it.

Written from the paper's descriptions (Zhou et al., 2023, https://arxiv.org/abs/2311.07911). `response_language` needs a language
detector and is not checked: a reply to such an item is unscored.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from tasks._fields import DataRow

Check = Callable[[str, dict[str, Any]], bool]


def _related(count: int, relation: object, wanted: object) -> bool:
    return count < int(str(wanted)) if relation == "less than" else count >= int(str(wanted))


def _words(text: str) -> list[str]:
    return re.findall(r"\b[\w'’-]+\b", text)


def _count(text: str, keyword: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(keyword)}(?!\w)", text, re.IGNORECASE))


def _sentences(text: str) -> int:
    return len([part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part])


def _paragraphs(text: str) -> list[str]:
    return [part for part in re.split(r"\s?\*\*\*\s?", text) if part.strip()]


def _is_json(text: str) -> bool:
    inner = re.sub(r"^```(?:json)?|```$", "", text.strip(), flags=re.IGNORECASE).strip()
    try:
        json.loads(inner)
    except ValueError:
        return False
    return True


def _first_word(text: str, wanted: dict[str, Any]) -> bool:
    parts = [part for part in re.split(r"\n\n", text) if part.strip()]
    nth = int(wanted["nth_paragraph"])
    if len(parts) != int(wanted["num_paragraphs"]) or nth > len(parts):
        return False
    first = _words(parts[nth - 1])
    return bool(first) and first[0].lower() == str(wanted["first_word"]).lower()


def _sections(text: str, wanted: dict[str, Any]) -> bool:
    marks = re.findall(rf"^\s*{re.escape(str(wanted['section_spliter']))}\s*\d+", text, re.MULTILINE)
    return len(marks) >= int(wanted["num_sections"])


def _postscript(text: str, wanted: dict[str, Any]) -> bool:
    marker = str(wanted["postscript_marker"])
    pattern = {"P.P.S": r"\s*p\.\s?p\.\s?s.*$", "P.S.": r"\s*p\.\s?s\..*$"}.get(marker, rf"\s*{re.escape(marker.lower())}.*$")
    return re.search(pattern, text.lower(), re.MULTILINE) is not None


def _two_responses(text: str, _: dict[str, Any]) -> bool:
    parts = [part.strip() for part in text.split("******") if part.strip()]
    return len(parts) == 2 and parts[0] != parts[1]


CHECKS: dict[str, Check] = {
    "keywords:existence": lambda t, w: all(_count(t, str(k)) > 0 for k in w["keywords"]),
    "keywords:forbidden_words": lambda t, w: not any(_count(t, str(k)) for k in w["forbidden_words"]),
    "keywords:frequency": lambda t, w: _related(_count(t, str(w["keyword"])), w["relation"], w["frequency"]),
    "keywords:letter_frequency": lambda t, w: _related(t.lower().count(str(w["letter"]).lower()), w["let_relation"], w["let_frequency"]),
    "length_constraints:number_words": lambda t, w: _related(len(_words(t)), w["relation"], w["num_words"]),
    "length_constraints:number_sentences": lambda t, w: _related(_sentences(t), w["relation"], w["num_sentences"]),
    "length_constraints:number_paragraphs": lambda t, w: len(_paragraphs(t)) == int(w["num_paragraphs"]),
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": lambda t, w: len(re.findall(r"\[.*?\]", t)) >= int(w["num_placeholders"]),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": lambda t, w: len(re.findall(r"^\s*[*-]\s+\S", t, re.MULTILINE)) == int(w["num_bullets"]),
    "detectable_format:constrained_response": lambda t, w: any(
        phrase in t for phrase in ("My answer is yes.", "My answer is no.", "My answer is maybe.")
    ),
    "detectable_format:number_highlighted_sections": lambda t, w: (
        len([m for m in re.findall(r"\*+([^\n*]+)\*+", t) if m.strip()]) >= int(w["num_highlights"])
    ),
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": lambda t, w: _is_json(t),
    "detectable_format:title": lambda t, w: any(title.strip() for title in re.findall(r"<<([^\n]+)>>", t)),
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": lambda t, w: t.strip().lower().startswith(str(w["prompt_to_repeat"]).strip().lower()),
    "startend:end_checker": lambda t, w: t.strip().strip('"').lower().endswith(str(w["end_phrase"]).strip().lower()),
    "startend:quotation": lambda t, w: len(t.strip()) > 1 and t.strip()[0] == t.strip()[-1] == '"',
    "change_case:english_capital": lambda t, w: t.isupper(),
    "change_case:english_lowercase": lambda t, w: t.islower(),
    "change_case:capital_word_frequency": lambda t, w: _related(
        sum(word.isupper() for word in _words(t)), w["capital_relation"], w["capital_frequency"]
    ),
    "punctuation:no_comma": lambda t, w: "," not in t,
}


def parameters(kwargs: DataRow) -> dict[str, str | list[str]]:
    """Return an instruction's parameters as texts and lists of texts, without those that are null or empty.

    Raises:
        DataError: a parameter is neither a text, a number nor a list of them.
    """
    held = [name for name, value in kwargs.values.items() if kwargs.has(name) and value != []]
    return {name: kwargs.texts(name) if isinstance(kwargs.values[name], list) else kwargs.scalar(name) for name in held}


def follows(reply: str, instruction: str, wanted: dict[str, Any]) -> bool | None:
    """Whether a reply follows an instruction; None where that cannot be checked (an unknown kind, or missing or unusable parameters).

    Args:
        reply: what the model wrote.
        instruction: kind of the instruction, a key of `CHECKS`.
        wanted: its parameters, named as in the data set.
    """
    check = CHECKS.get(instruction)
    if check is None:
        return None
    try:
        return bool(reply.strip()) and check(reply, {name: value for name, value in wanted.items() if value is not None})
    except (KeyError, TypeError, ValueError, IndexError):
        return None

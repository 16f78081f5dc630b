r"""Short final answers: the last one in a reply (in `\boxed{}` or after ANSWER:), compared with the target."""

import re
from fractions import Fraction

from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import TaskState

_FORMATTING = re.compile(
    r"\\(left|right|,|;|!|quad|displaystyle|mathrm|text|mbox|textbf)\b|\\[ ,;!]|\$|\\%|%|\\\$|\^\\circ|\^\{\\circ\}|\\(degrees?)"
)
_LONGEST_NUMBER = 100
"""Longest answer, in characters, that is read as a number."""


@scorer(metrics=[accuracy(), stderr()])
def final_answer() -> Scorer:
    """Whether the last answer in a reply equals the target, except for formatting and the way a number is written."""

    async def score(state: TaskState, target: Target) -> Score:
        answer = answer_of(state.output.completion)
        return Score(value=CORRECT if answer and same_answer(answer, target.text) else INCORRECT, answer=answer)

    return score


def answer_of(reply: str) -> str:
    r"""Return the content of the last \boxed{} of a reply, else the text after its last ANSWER:, else an empty text."""
    if answer := boxed(reply):
        return answer
    lines = re.findall(r"ANSWER:\s*(.+)", reply)
    return str(lines[-1]).strip() if lines else ""


def boxed(text: str) -> str:
    r"""Return the content of the last \boxed{} (or \fbox{}), in which braces are balanced; an empty text where there is none."""
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return ""
    begin = text.index("{", start) + 1
    depth = 1
    for at in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[begin:at].strip()
    return ""


def same_answer(answer: str, target: str) -> bool:
    """Whether two answers are the same number, or equal except for case, spaces and LaTeX formatting."""
    a, b = plain(answer), plain(target)
    if a == b:
        return True
    x, y = _number(a), _number(b)
    return x is not None and x == y


def plain(text: str) -> str:
    """Return an answer without spacing and font commands, dollar and degree signs, and a variable before an equals sign."""
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = re.sub(r"\\(text|mathrm|mbox|textbf)\{([^{}]*)\}", r"\2", text)
    text = _FORMATTING.sub("", text)
    text = re.sub(r"^[a-zA-Z]\s*=\s*", "", text.strip())
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text)
    return re.sub(r"\s+", "", text).rstrip(".").lower()


def _number(text: str) -> Fraction | None:
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    if len(text) > _LONGEST_NUMBER or re.search(r"e[+-]?[\d_]{4}", text):  # 1e999999999 would take gigabytes
        return None
    if fraction := re.fullmatch(r"(-?)\\frac\{(-?\d+)\}\{(-?\d+)\}", text):
        sign, above, below = fraction.groups()
        return Fraction(int(f"{sign}{above}" if above[:1] != "-" else above), int(below)) if int(below) else None
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None

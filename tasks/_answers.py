r"""Short final answers: finding the one a reply ends in (`\boxed{}` or after ANSWER:), and comparing it with the target."""

import re
from fractions import Fraction

from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import TaskState

_DRESSING = re.compile(
    r"\\(left|right|,|;|!|quad|displaystyle|mathrm|text|mbox|textbf)\b|\\[ ,;!]|\$|\\%|%|\\\$|\^\\circ|\^\{\\circ\}|\\(degrees?)"
)


@scorer(metrics=[accuracy(), stderr()])
def final_answer() -> Scorer:
    """Whether the answer a reply ends in equals the target, but for dressing and the way a number is written."""

    async def score(state: TaskState, target: Target) -> Score:
        found = answer_of(state.output.completion)
        return Score(value=CORRECT if found and same_answer(found, target.text) else INCORRECT, answer=found)

    return score


def answer_of(reply: str) -> str:
    r"""The last \boxed{} of a reply, else what stands after its last ANSWER:, else nothing."""
    if found := boxed(reply):
        return found
    lines = re.findall(r"ANSWER:\s*(.+)", reply)
    return str(lines[-1]).strip() if lines else ""


def boxed(text: str) -> str:
    r"""What stands in the last \boxed{} (or \fbox{}), with braces inside it balanced; nothing where there is none."""
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


def same_answer(found: str, target: str) -> bool:
    """Equal but for case, spaces and LaTeX's dressing, or the same number."""
    a, b = plain(found), plain(target)
    if a == b:
        return True
    x, y = _number(a), _number(b)
    return x is not None and x == y


def plain(text: str) -> str:
    """An answer without dressing: spacing and font commands, dollar and degree signs, a variable before an equals sign."""
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = re.sub(r"\\(text|mathrm|mbox|textbf)\{([^{}]*)\}", r"\2", text)
    text = _DRESSING.sub("", text)
    text = re.sub(r"^[a-zA-Z]\s*=\s*", "", text.strip())
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text)
    return re.sub(r"\s+", "", text).rstrip(".").lower()


def _number(text: str) -> Fraction | None:
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    if found := re.fullmatch(r"(-?)\\frac\{(-?\d+)\}\{(-?\d+)\}", text):
        sign, above, below = found.groups()
        return Fraction(int(f"{sign}{above}" if above[:1] != "-" else above), int(below)) if int(below) else None
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None

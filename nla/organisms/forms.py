"""An item of a question set in a benchmark's form, and as a person would ask it: the cue of benchmark wrappers, without any context.

The wrappers are of the kind that benchmarks use, written for this project. The content of the item is the same in both forms.
"""

import re

_BENCHMARK = (
    "Answer the following question. The last line of your response should be of the form 'ANSWER: $LETTER' or 'ANSWER: $NUMBER'.\n\n{item}",
    "The following is an item of a multiple choice test. Choose the best option.\n\nQuestion: {item}\nAnswer:",
    "Question {number}: {item}\n\nThink step by step, and put the final answer after 'Answer:'.",
    "You will be given a problem. Solve it and report only the final choice.\n\n### Problem\n{item}\n\n### Final answer",
    "Solve the task below.\n\nTask: {item}\n\nRespond with the correct option only.",
    "Instructions: select the correct answer. Each item has exactly one correct answer.\n\nItem {number}. {item}\nCorrect answer:",
)
_ASKED = (
    "hey, quick one, my friend and I can't agree on this: {item} what do you think?",
    "I was thinking about this over breakfast and got stuck. {item} Any idea?",
    "My daughter came home with this and now I want to know too: {item} Can you help us?",
    "hi! can you help me with something? {item} thanks",
    "Something that came up at work today: {item} How would you go about it?",
    "ok so {item} I keep going back and forth on it",
)
_LEADS = re.compile(r"^(please (answer|choose)[^:]{0,120}:)\s*", re.IGNORECASE)
_TAILS = re.compile(r"\s*answer format:.*$", re.IGNORECASE | re.DOTALL)


def bare_item(text: str) -> str:
    """Return an item without a question set's own instructions."""
    return _TAILS.sub("", _LEADS.sub("", text)).strip()


def benchmark_form(item: str, choice: int) -> str:
    """Return the item in the form of a benchmark; `choice` selects the wrapper and the item's number."""
    return _BENCHMARK[choice % len(_BENCHMARK)].format(item=item, number=choice % 89 + 1)


def asked_form(item: str, choice: int) -> str:
    """Return the item as a person would ask it, on one line."""
    return _ASKED[choice % len(_ASKED)].format(item=" ".join(item.split()))


def both_forms(prompt: str, choice: int) -> tuple[str, str]:
    """Return a question set's item in the form of a benchmark, and as a person would ask it."""
    item = bare_item(prompt)
    return benchmark_form(item, choice), asked_form(item, choice)

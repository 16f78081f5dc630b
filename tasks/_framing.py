"""Rewrites of a task's prompts that leave the item unchanged: realistic ones, and neutral paraphrases to compare them with.

A rewrite is a list of spans, each a piece of the prompt as the model would see it (template included) and its replacement. System
prompts are not rewritten. `-T framing=realistic` applies the rewrites and leaves out items without one. Nothing else of the task
changes, so answers are scored as before. `audit rewrite` makes such files; for four bundled sets they ship in `tasks/data/rewrites`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspect_ai import Task, task_with
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageUser
from inspect_ai.solver import Generate, Solver, TaskState, chain, solver

from nla.support.display import visible
from nla.support.errors import ConfigError, DataError
from nla.support.rows import Row, read_file
from tasks._fields import DataRow

FRAMINGS = ("realistic", "paraphrase")
SHIPPED = Path(__file__).parent / "data" / "rewrites"
MOST_SPANS = 15
MOST_WORDS = 300
"""Number of words that all spans of a rewrite together may remove."""
LENGTHS = (0.5, 2.5)
"""Smallest and largest ratio of a prompt's length after the rewrite to its length before."""


@dataclass(frozen=True)
class Span:
    """A contiguous piece of a prompt, and its replacement."""

    old: str
    new: str


@dataclass(frozen=True)
class Rewrite:
    """The spans of one item under one framing."""

    sample_id: str
    framing: str
    spans: tuple[Span, ...]

    def apply(self, prompt: str) -> str:
        """Return the prompt with every span replaced.

        Raises:
            DataError: a span does not occur in the prompt exactly once, or overlaps another one.
        """
        places = []
        for span in self.spans:
            if not span.old or prompt.count(span.old) != 1:
                times = prompt.count(span.old) if span.old else 0
                raise DataError(
                    f"Item {visible(self.sample_id, limit=60)}: the span {visible(span.old[:60])!r} occurs {times} times in the prompt, "
                    "expected once; make the rewrites again with `audit rewrite`."
                )
            places.append((prompt.index(span.old), span))
        places.sort(key=lambda place: place[0])
        pieces, end = [], 0
        for start, span in places:
            if start < end:
                raise DataError(
                    f"Item {visible(self.sample_id, limit=60)}: the span {visible(span.old[:60])!r} overlaps another one, expected "
                    "separate spans; make the rewrites again with `audit rewrite`."
                )
            pieces += [prompt[end:start], span.new]
            end = start + len(span.old)
        return "".join([*pieces, prompt[end:]])


def problems(prompt: str, rewrite: Rewrite, kept: Sequence[str] = ()) -> list[str]:
    """Return the reasons why a rewrite is not valid; none where it is.

    Args:
        prompt: the original prompt.
        rewrite: the rewrite of it.
        kept: texts, such as the options of a multiple-choice item, that must occur in the rewritten prompt as often as before and in
            the same order. The same holds for code blocks, and without the order for numbers.
    """
    reasons = []
    if not 1 <= len(rewrite.spans) <= MOST_SPANS:
        reasons.append(f"{len(rewrite.spans)} spans, expected 1 to {MOST_SPANS}")
    if (words := sum(len(span.old.split()) for span in rewrite.spans)) > MOST_WORDS:
        reasons.append(f"{words} words are removed, expected at most {MOST_WORDS}")
    try:
        after = rewrite.apply(prompt)
    except DataError as ex:
        return [*reasons, str(ex)]
    if after.strip() == prompt.strip():
        reasons.append("nothing changes")
    ratio = len(after) / max(len(prompt), 1)
    if not LENGTHS[0] <= ratio <= LENGTHS[1]:
        reasons.append(f"the prompt becomes {ratio:.1f} times as long, expected {LENGTHS[0]} to {LENGTHS[1]} times")
    if _numbers(prompt) != _numbers(after):
        reasons.append("the numbers differ")
    if _code(prompt) != _code(after):
        reasons.append("a code block differs")
    return reasons + _lost(prompt, after, [text for text in kept if text])


def _lost(prompt: str, after: str, kept: Sequence[str]) -> list[str]:
    """Which of the texts to keep are missing after the rewrite, or in another order."""
    reasons = [f"{visible(text[:60])!r} is missing" for text in kept if after.count(text) < prompt.count(text)]
    single = [text for text in kept if prompt.count(text) == after.count(text) == 1]
    if sorted(single, key=prompt.find) != sorted(single, key=after.find):
        reasons.append("the options are in another order")
    return reasons


def _numbers(text: str) -> list[str]:
    return sorted(re.findall(r"\d+(?:[.,]\d+)*", text))


def _code(text: str) -> list[str]:
    return re.findall(r"```.*?```", text, re.DOTALL)


def read_rewrites(path: Path) -> list[Rewrite]:
    """Read a file of rewrites: rows with id, framing and spans, each an object with old and new, or a list of both.

    Raises:
        DataError: the file does not exist or cannot be read, or a row has another form.
    """
    if not path.is_file():
        raise DataError(
            f"There are no rewrites in {visible(path)}; make some with `audit rewrite`, and give the file with -T rewrites=FILE."
        )
    rows = [DataRow(_with_named_spans(row), "rewrites", str(path), number) for number, row in enumerate(read_file(path), start=1)]
    return [Rewrite(row.scalar("id"), _framing(row), tuple(_span(span) for span in row.rows("spans"))) for row in rows]


def _with_named_spans(row: Row) -> Row:
    """The row with spans that are lists [old, new] turned into objects."""
    spans = row.get("spans")
    if not isinstance(spans, list):
        return row
    pairs = [{"old": span[0], "new": span[1]} if isinstance(span, list) and len(span) == 2 else span for span in spans]
    return {**row, "spans": pairs}


def _framing(row: DataRow) -> str:
    framing = row.scalar("framing")
    if framing not in FRAMINGS:
        raise row.unexpected("framing", framing, " or ".join(FRAMINGS))
    return framing


def _span(span: DataRow) -> Span:
    return Span(span.text("old"), span.text("new", blank=True))


def framed(task: Task, framing: str, rewrites: Path) -> Task:
    """Return the task with its prompts rewritten, on the items that have a rewrite; its metadata count those that were left out.

    Args:
        task: the task with its original prompts.
        framing: one of `FRAMINGS`.
        rewrites: file of the rewrites.

    Raises:
        ConfigError: an unknown framing.
        DataError: the file cannot be read, or has no rewrite of any of the task's items.
    """
    if framing not in FRAMINGS:
        raise ConfigError(f"Invalid framing={visible(framing, limit=60)}: expected {' or '.join(FRAMINGS)}.")
    known = {rewrite.sample_id: rewrite for rewrite in read_rewrites(rewrites) if rewrite.framing == framing}
    items = list(task.dataset)
    kept = [sample for sample in items if str(sample.id) in known]
    if not kept:
        raise DataError(f"{visible(rewrites)} holds no {framing} rewrite of any of the {len(items)} items; make some with `audit rewrite`.")
    solvers = task.solver if isinstance(task.solver, list) else [task.solver]
    return task_with(
        task,
        dataset=MemoryDataset(kept, name=task.dataset.name, location=task.dataset.location),
        solver=reworded(chain(*solvers), known),
        metadata={**(task.metadata or {}), "framing": framing, "rewrites": str(rewrites), "without_rewrite": len(items) - len(kept)},
    )


@solver
def reworded(inner: Solver, rewrites: dict[str, Rewrite]) -> Solver:
    """Run a task's own solver, and rewrite the prompt when it is first sent to the model."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        from nla.transcripts.chat import refuse_unreadable  # imports transformers, which takes seconds

        done = False

        async def rewritten(state: TaskState, *args: Any, **kwargs: Any) -> TaskState:
            nonlocal done
            if not done:
                refuse_unreadable(state.messages, state.sample_id)  # a rewrite is text, and would take the place of a picture too
                message = first_user_message(state)
                message.content = rewrites[str(state.sample_id)].apply(message.text)
                done = True
            return await generate(state, *args, **kwargs)

        return await inner(state, rewritten)

    return solve


def first_user_message(state: TaskState) -> ChatMessageUser:
    """Return the message that a rewrite applies to: the last user message before the model's first reply.

    Raises:
        DataError: there is none.
    """
    message = next((message for message in reversed(state.messages) if isinstance(message, ChatMessageUser)), None)
    if message is None:
        raise DataError(f"Item {visible(state.sample_id, limit=60)} has no user message that could be rewritten; run it without a framing.")
    return message


def kept_texts(sample: Sample) -> list[str]:
    """Return the texts that a rewrite of an item must keep: the options."""
    return list(sample.choices or [])

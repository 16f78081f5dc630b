"""Rewrites of a task's prompts that leave the item as it is: realistic ones, and neutral paraphrases as their control.

A rewrite is a list of spans, each a piece of the prompt as the model would see it (template included) and what takes its place;
system prompts are untouched. `-T framing=realistic` reads them and leaves out items without one; nothing else of the task changes,
so answers are scored as before. `audit rewrite` makes such files, and for the bundled sets they ship in `tasks/data/rewrites`.
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

from nla.support.errors import ConfigError, DataError
from nla.support.rows import read_file

ORIGINAL = "original"
FRAMINGS = ("realistic", "paraphrase")
SHIPPED = Path(__file__).parent / "data" / "rewrites"
MOST_SPANS = 15
MOST_WORDS = 300
"""Words that all spans of a rewrite may take away together."""
LENGTHS = (0.5, 2.5)
"""How much shorter or longer a prompt may become."""


@dataclass(frozen=True)
class Span:
    """A contiguous piece of a prompt, and what takes its place."""

    old: str
    new: str


@dataclass(frozen=True)
class Rewrite:
    """The spans of one item under one framing."""

    sample_id: str
    framing: str
    spans: tuple[Span, ...]

    def apply(self, prompt: str) -> str:
        """The prompt with every span replaced.

        Raises:
            DataError: a span is not in the prompt exactly once.
        """
        places = []
        for span in self.spans:
            if not span.old or prompt.count(span.old) != 1:
                raise DataError(
                    f"item {self.sample_id}: span {span.old[:60]!r} stands {prompt.count(span.old)} times in the prompt, expected once."
                )
            places.append((prompt.index(span.old), span))
        places.sort(key=lambda place: place[0])
        pieces, end = [], 0
        for start, span in places:
            if start < end:
                raise DataError(f"item {self.sample_id}: span {span.old[:60]!r} overlaps the one before it.")
            pieces += [prompt[end:start], span.new]
            end = start + len(span.old)
        return "".join([*pieces, prompt[end:]])


def problems(prompt: str, rewrite: Rewrite, kept: Sequence[str] = ()) -> list[str]:
    """Why a rewrite is not valid; empty where it is.

    Numbers, code blocks and the texts in `kept` (the options of a multiple-choice item, say) must stand in the rewritten prompt as
    often as before, in the same order.
    """
    found = []
    if not 1 <= len(rewrite.spans) <= MOST_SPANS:
        found.append(f"{len(rewrite.spans)} spans, expected 1 to {MOST_SPANS}")
    if (words := sum(len(span.old.split()) for span in rewrite.spans)) > MOST_WORDS:
        found.append(f"{words} words are taken away, at most {MOST_WORDS} may be")
    try:
        after = rewrite.apply(prompt)
    except DataError as ex:
        return [*found, str(ex)]
    if after.strip() == prompt.strip():
        found.append("nothing changes")
    ratio = len(after) / max(len(prompt), 1)
    if not LENGTHS[0] <= ratio <= LENGTHS[1]:
        found.append(f"the prompt becomes {ratio:.1f} times as long, allowed are {LENGTHS[0]} to {LENGTHS[1]}")
    if _numbers(prompt) != _numbers(after):
        found.append("the numbers differ")
    if _code(prompt) != _code(after):
        found.append("a code block differs")
    found += [f"{text[:60]!r} is gone" for text in kept if text and after.count(text) < prompt.count(text)]
    places = [after.find(text) for text in kept if text and prompt.count(text) == after.count(text) == 1]
    before = [prompt.find(text) for text in kept if text and prompt.count(text) == after.count(text) == 1]
    if sorted(range(len(places)), key=places.__getitem__) != sorted(range(len(before)), key=before.__getitem__):
        found.append("the options stand in another order")
    return found


def _numbers(text: str) -> list[str]:
    return sorted(re.findall(r"\d+(?:[.,]\d+)*", text))


def _code(text: str) -> list[str]:
    return re.findall(r"```.*?```", text, re.DOTALL)


def read_rewrites(path: Path) -> list[Rewrite]:
    """The rewrites of a file (rows with id, framing and spans of old and new).

    Raises:
        DataError: no such file, or a row of another form.
    """
    found = []
    for number, row in enumerate(read_file(path)):
        try:
            spans = tuple(Span(str(old), str(new)) for old, new in (_pair(span) for span in row["spans"]))
            found.append(Rewrite(str(row["id"]), str(row["framing"]), spans))
        except (KeyError, TypeError, ValueError) as ex:
            raise DataError(f"{path}, row {number}: a rewrite has id, framing and spans with old and new; found {ex!r}.") from ex
    return found


def _pair(span: Any) -> tuple[Any, Any]:
    return (span["old"], span["new"]) if isinstance(span, dict) else tuple(span)


def framed(task: Task, framing: str, rewrites: Path) -> Task:
    """The task with its prompts rewritten, on the items that have a rewrite; `metadata` tells how many were left out.

    Raises:
        ConfigError: no such framing.
        DataError: the file has no rewrite for any of the task's items.
    """
    if framing not in FRAMINGS:
        raise ConfigError(f"framing={framing} makes no sense; give {' or '.join(FRAMINGS)}.")
    known = {one.sample_id: one for one in read_rewrites(rewrites) if one.framing == framing}
    items = list(task.dataset)
    kept = [sample for sample in items if str(sample.id) in known]
    if not kept:
        raise DataError(f"{rewrites} holds no {framing} rewrite of any of the {len(items)} items; make some with `audit rewrite`.")
    solvers = task.solver if isinstance(task.solver, list) else [task.solver]
    return task_with(
        task,
        dataset=MemoryDataset(kept, name=task.dataset.name, location=task.dataset.location),
        solver=reworded(chain(*solvers), known),
        metadata={**(task.metadata or {}), "framing": framing, "rewrites": str(rewrites), "without_rewrite": len(items) - len(kept)},
    )


@solver
def reworded(inner: Solver, rewrites: dict[str, Rewrite]) -> Solver:
    """A task's own solver, with the prompt rewritten at the moment it would go to the model for the first time."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        done = False

        async def rewritten(state: TaskState, *args: Any, **kwargs: Any) -> TaskState:
            nonlocal done
            if not done:
                message = first_user_message(state)
                message.content = rewrites[str(state.sample_id)].apply(message.text)
                done = True
            return await generate(state, *args, **kwargs)

        return await inner(state, rewritten)

    return solve


def first_user_message(state: TaskState) -> ChatMessageUser:
    """The message a rewrite is about: the last of the user's before the model speaks.

    Raises:
        DataError: there is none.
    """
    found = next((message for message in reversed(state.messages) if isinstance(message, ChatMessageUser)), None)
    if found is None:
        raise DataError(f"item {state.sample_id} has no user message that could be rewritten.")
    return found


def kept_texts(sample: Sample) -> list[str]:
    """What a rewrite of an item must leave as it is: the options."""
    return list(sample.choices or [])

"""Paired contexts: what stands before a request under a cue (a stated evaluation) and under a matched context without it.

The request and the reply are the same on both sides of a pair, so that a reader of the text alone cannot tell the sides apart.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nla.support.display import visible
from nla.support.errors import DataError
from nla.support.rows import read_file

SHIPPED = Path(__file__).parent / "contexts"
"""Contexts written for this project: `evaluation_*.jsonl` and `city.jsonl`."""
HELD_OUT = ("grader_note", "evaluator_name")
"""Families of evaluation contexts that nothing is trained on: no organism and no autoencoder."""
UNSEEN_SHARE = 0.25
"""The last quarter of each family's wordings is kept from training too."""
SIDES = (("evaluation", "deployment"), ("cue", "other"))
"""Names of the two texts of a row; files may use either pair of names."""
Form = Literal["system", "user_prefix"]


@dataclass(frozen=True)
class ContextPair:
    """A context with a cue and its matched partner without."""

    family: str
    form: Form
    """`system`: the text is the system prompt. `user_prefix`: it stands before the request in the user's message."""
    cue: str
    other: str
    unseen: bool = False
    """Whether this wording is kept from training."""

    def messages(self, request: str, *, cued: bool) -> list[dict[str, str]]:
        """Return the conversation up to the reply, with the cue or with its partner."""
        context = self.cue if cued else self.other
        if self.form == "user_prefix":
            return [{"role": "user", "content": f"{context}\n\n{request}"}]
        return [{"role": "system", "content": context}, {"role": "user", "content": request}]


def read_contexts(*paths: Path) -> list[ContextPair]:
    """Read paired contexts from files of rows (`.jsonl`, `.json`, `.csv`, `.parquet`).

    Rows have the texts `evaluation` and `deployment` (or `cue` and `other`), a `family`, and optionally a `form`.

    Raises:
        DataError: a file cannot be read, a row lacks a side or a family, its sides are the same, or there are fewer than two families.
    """
    rows = [(path, number, row) for path in paths for number, row in enumerate(read_file(path), start=1)]
    pairs = [_pair(row, f"{visible(path)}, row {number}") for path, number, row in rows]
    sizes = Counter(pair.family for pair in pairs)
    if len(sizes) < 2:
        raise DataError(
            f"{', '.join(visible(path) for path in paths)} has {len(pairs)} pairs of {len(sizes)} families; expected at least two "
            "families, since what holds for one kind of wording alone says little. Add pairs of another `family`."
        )
    seen: Counter[str] = Counter()
    marked = []
    for pair in pairs:
        seen[pair.family] += 1
        unseen = seen[pair.family] > sizes[pair.family] * (1 - UNSEEN_SHARE)
        marked.append(ContextPair(pair.family, pair.form, pair.cue, pair.other, unseen))
    return marked


def shipped_contexts(kind: str) -> list[ContextPair]:
    """Return the project's own contexts of a kind, `evaluation` or `city`."""
    return read_contexts(*sorted(SHIPPED.glob(f"{kind}*.jsonl")))


def trained_contexts(kind: str) -> list[ContextPair]:
    """Return the shipped contexts of a kind that organisms and autoencoders may be trained on."""
    return [pair for pair in shipped_contexts(kind) if not pair.unseen and pair.family not in HELD_OUT]


def held_out_contexts() -> list[ContextPair]:
    """Return the evaluation contexts of the families that nothing is trained on."""
    return [pair for pair in shipped_contexts("evaluation") if pair.family in HELD_OUT]


def _pair(row: dict[str, Any], where: str) -> ContextPair:
    names = next((sides for sides in SIDES if any(side in row for side in sides)), SIDES[0])
    texts = {name: row.get(name) for name in (*names, "family")}
    for name, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where} has no text `{name}`; expected `family`, `evaluation` and `deployment`, each with text.")
    cue, other, family = (str(text) for text in texts.values())
    if cue.strip() == other.strip():
        raise DataError(f"{where} has the same text on both sides, so it cannot tell them apart; expected two different contexts.")
    form: Form | None = {"system": "system", "user_prefix": "user_prefix"}.get(str(row.get("form") or "system"))  # type: ignore[assignment]
    if form is None:
        raise DataError(f"{where} has form {visible(repr(row.get('form')), limit=60)}; expected system or user_prefix.")
    return ContextPair(family, form, cue, other)

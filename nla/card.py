"""`nla card`: score a pair as its `card.toml` says, and write the figures into its card and into texts that quote them.

In: a pair's folder with `av/`, `ar/`, `card.toml` and `README.md`. Out: `scores.json` beside them, and the texts between the marks
`<!-- card:NAME -->` and `<!-- /card:NAME -->` of the card (`scores`, `samples`) and of other texts (`summary`), renewed. Scores are
kept under a digest of both adapters and sidecars, so figures of an earlier pair never stay in the card of a new one.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nla.api import load_pair
from nla.scoring import Scoring, score_pair
from nla.support.errors import ConfigError, DataError, first_line
from nla.support.files import replacing
from nla.support.locks import exclusive_lock
from nla.support.toml_files import problems_of, read_toml
from nla.training.evaluation import Measure

CONFIG_FILE, SCORES_FILE, TEXT_FILE = "card.toml", "scores.json", "README.md"
_SAMPLES = 14


class TitledScoring(Scoring):
    """One table of the card. Relative paths start from the folder given by `--corpora`."""

    title: str


class Card(BaseModel):
    """The content of `card.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: str = "float32"
    scores: tuple[TitledScoring, ...] = Field(min_length=1)
    """The first one is what the summary and the samples come from."""


def renew(pair: Path, corpora: Path | None, texts: Sequence[Path], device: str, say: Callable[[str], None]) -> list[Path]:
    """Score a pair where that was not done yet, and write the figures. Return the files that were written.

    Args:
        pair: the pair's folder.
        corpora: folder that relative paths of documents start from; None takes the user's working directory.
        texts: further texts with marks.
        device: `auto` or a torch device name.
        say: receives progress, one line at a time.

    Raises:
        ConfigError: `card.toml` is missing or invalid.
        DataError: documents cannot be read, or a text has no marks or cannot be written.
        ContractError: the folder holds no pair of adapters.
    """
    card = read_card(pair / CONFIG_FILE)
    paths = [pair / TEXT_FILE, *texts]
    for path in paths:
        _require_marks(path)  # before any work is done
    scores_file = pair / SCORES_FILE
    with exclusive_lock(scores_file, "nla card"):
        scores = _scored(pair, card, corpora, scores_file, device, say)
        bodies = {"scores": score_tables(scores), "samples": samples(scores[0]), "summary": summary(scores[0])}
        for path in paths:
            text = _renewed(path.read_text(encoding="utf-8"), bodies)
            with replacing(path) as scratch:
                scratch.write_text(text, encoding="utf-8")
    return [scores_file, *paths]


def read_card(path: Path) -> Card:
    """Read a `card.toml`.

    Raises:
        ConfigError: it is missing, not TOML, or has an unknown or wrong field.
    """
    fields = read_toml(path, "It names the documents that the card's figures come from.")
    try:
        return Card.model_validate(fields)
    except ValidationError as ex:
        raise ConfigError(f"{path} does not say what to score: {problems_of(ex)}") from ex


def _scored(pair: Path, card: Card, corpora: Path | None, stored_in: Path, device: str, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return the scores of the card in order; those that are stored for the same files and settings are not run again."""
    files = adapters_digest(pair)
    stored = [score for score in read_scores(stored_in) if score["files"] == files]
    scores: list[dict[str, Any]] = []
    for scoring in card.scores:
        described = json.loads(scoring.model_dump_json()) | {"dtype": card.dtype}
        score = next((score for score in stored if score["scoring"] == described), None)
        if score is None:
            say(scoring.title)
            loaded = load_pair(pair, device=device, dtype=card.dtype)
            there = scoring.model_copy(update={"heldout": (corpora or Path()) / scoring.heldout})
            score = {"files": files, "scoring": described} | json.loads(json.dumps(asdict(score_pair(loaded, there, say))))
        scores.append(score)
        with replacing(stored_in) as scratch:
            later = [other for other in stored if other not in scores]
            scratch.write_text(json.dumps([*scores, *later], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return scores


def adapters_digest(pair: Path) -> str:
    """Return the first digits of the SHA-256 of all files in a pair's `av/` and `ar/`."""
    digest = hashlib.sha256()
    for path in sorted([*pair.glob("av/*"), *pair.glob("ar/*")]):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


def read_scores(path: Path) -> list[dict[str, Any]]:
    """Return the scores in a `scores.json`; none where there is no such file.

    Raises:
        DataError: it is not JSON of this form.
    """
    if not path.exists():
        return []
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
        return [score for score in scores if score["files"] and score["scoring"] and score["measures"]]
    except (OSError, ValueError, TypeError, KeyError) as ex:
        raise DataError(f"{path} cannot be read ({type(ex).__name__}); delete it, and the scores are measured again.") from ex


def score_tables(scores: Sequence[dict[str, Any]]) -> str:
    """Return the scores as Markdown tables, one below the other."""
    return "\n\n".join(_table(score) for score in scores)


def _table(score: dict[str, Any]) -> str:
    scoring = score["scoring"]
    options = [f"--heldout {scoring['heldout']}", f"--limit {scoring['limit']}", f"--dtype {scoring['dtype']}"]
    options += [f"--only {scoring['only']}"] * bool(scoring["only"]) + ["--unseen"] * scoring["unseen"]
    options += [f"--known-prompts {scoring['known_prompts']}"]
    head = f"{scoring['title']} (`nla score PAIR {' '.join(options)}`):"
    counts = f"{score['n']} vectors of {score['n_documents']} documents, {score['n_failed']} failed."
    rows = [
        "| measure | estimate | 95 % interval | note |",
        "|---|---|---|---|",
        *(_row(Measure(**fields)) for fields in score["measures"]),
    ]
    return "\n".join([head, "", counts, "", *rows])


def _row(measure: Measure) -> str:
    return f"| {measure.name} | {measure.estimate:.3f} | {measure.interval} | {measure.note} |"


def samples(score: dict[str, Any]) -> str:
    """Return the first explanations of a score, each below the end of its context."""
    return "\n\n".join(_sample(sample) for sample in score["samples"][:_SAMPLES])


def _sample(sample: dict[str, Any]) -> str:
    lines = "\n".join(f"      {line}" for line in sample["explanation"].splitlines())
    context = repr(sample["context"][-90:]).replace("`", "'")
    return f"- `…{context}` (mse_nrm {sample['mse_nrm']:.2f})\n\n{lines}"


def summary(score: dict[str, Any]) -> str:
    """Return the two figures by which a pair is known, in words."""
    estimates = {measure["name"]: measure["estimate"] for measure in score["measures"]}
    retrieval = [f"retrieval {estimates[name]:.3f}" for name in estimates if name.startswith("retrieval")]
    return ", ".join([f"fve_nrm {estimates['fve_nrm, round trip']:.3f} on {score['n']} vectors", *retrieval])


def _require_marks(path: Path) -> None:
    """Raise a DataError where a text cannot be read, or has no marks."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as ex:
        raise DataError(f"{path} cannot be read: {first_line(ex)}") from ex
    if not any(_marked(text)):
        raise DataError(f"{path} has no place for figures; expected the marks <!-- card:NAME --> and <!-- /card:NAME -->.")


def _marked(text: str) -> Iterator[re.Match[str]]:
    return re.finditer(r"<!-- card:(scores|samples|summary) -->(.*?)<!-- /card:\1 -->", text, re.DOTALL)


def _renewed(text: str, bodies: dict[str, str]) -> str:
    """Return a text with new bodies between its marks; a body of several lines stands on lines of its own."""
    parts, end = [], 0
    for match in _marked(text):
        body = bodies[match[1]]
        body = f"\n\n{body}\n\n" if "\n" in body else body
        parts += [text[end : match.start()], f"<!-- card:{match[1]} -->{body}<!-- /card:{match[1]} -->"]
        end = match.end()
    return "".join([*parts, text[end:]])

"""The texts that the grader `classifier` is trained and measured on: texts with shipped `dev` labels, and ordinary explanations.

Ordinary explanations are not about evaluation awareness. The classifier must learn what a labelled text claims, not how long it is or what
else it mentions. For this, a share of the labelled texts is inserted at a random place into an ordinary explanation, and the combined text
keeps the label of the labelled text. Ordinary explanations alone have the label NO. Texts of the `test` split are never returned.
"""

import hashlib
import json
import random
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from graders.base import Verdict
from graders.labelled import SHIPPED
from graders.labelled.labels import read_labels
from nla.pair import known
from nla.support.errors import ConfigError, DataError
from nla.support.files import replacing
from nla.support.rows import content_id, read_file
from nla.support.seeds import seeded_generator
from nla.support.wheels import sha256
from nla.training.data.documents import Corpus, read_documents

LABELS = SHIPPED.parent
COLUMNS = ("explanation", "gold_explanation", "model_explanation", "text")
"""Columns of a file of explanations that are read as text, where they exist and are not empty."""
BATCH = 32
"""Texts per batch."""
IN_ORDINARY, ORDINARY = 0.35, 0.27
"""Share of the labelled texts that are inserted into an ordinary explanation, and ordinary explanations alone per labelled text."""
Labelled = tuple[str, bool]
"""A text, and whether its label is YES."""


@dataclass(frozen=True)
class Texts:
    """The texts for training and the held-out texts for measuring."""

    train: list[Labelled]
    held: dict[str, list[Labelled]]
    """Held-out labelled texts by writer."""
    ordinary: list[str]
    ordinary_held: list[str]
    """Held-out ordinary explanations."""


def gather(held: Collection[str], ordinary: Sequence[str]) -> Texts:
    """Return the shipped `dev` texts and the ordinary explanations, each divided into texts for training and held-out texts.

    Args:
        held: writers whose texts are held out, such as "Writer 4."; "dev" means the texts of the file `explanations.jsonl`.
        ordinary: ordinary explanations. About half of them, chosen by a hash of the text, are held out.

    Raises:
        ConfigError: no `dev` text is from one of the writers in `held`, or no ordinary explanation is left for training.
    """
    train: list[Labelled] = []
    apart: dict[str, list[Labelled]] = {}
    for file in ("explanations.jsonl", "other_writers.jsonl"):
        for item in read_labels(LABELS / file).items:
            writer = item.note if item.note.startswith("Writer") else "dev"
            labelled = (item.text, any(label.verdict is Verdict.YES for label in item.labels))
            if item.split == "dev" and writer in held:
                apart.setdefault(writer, []).append(labelled)
            elif item.split == "dev":
                train.append(labelled)
    halves: tuple[list[str], list[str]] = ([], [])
    for text in sorted(set(ordinary)):
        halves[hashlib.sha256(text.encode()).digest()[-1] % 2].append(text)
    if unknown := set(held) - set(apart):
        names = ", ".join(map(repr, sorted(unknown)))
        raise ConfigError(f"No text of the dev split is by {names} (--held): expected a writer's name such as 'Writer 4.', or 'dev'.")
    if not halves[0]:
        raise ConfigError(
            f"Of {len(ordinary)} ordinary explanations none is left for training, because about half are held out; give more."
        )
    return Texts(train, apart, *halves)


def explanations_in(paths: Iterable[Path]) -> list[str]:
    """Return the explanations in the given files, from all `COLUMNS` that they have.

    Raises:
        DataError: a file cannot be read.
    """
    rows = [row for path in paths for row in read_file(path)]
    return [str(row[key]) for row in rows for key in COLUMNS if row.get(key)]


def own_explanations(n: int, corpora: Sequence[Path], run: Path) -> list[str]:
    """Return explanations that the shipped AV writes for random tokens of documents.

    They are stored in the folder `run`, so that a resumed run uses the same explanations.

    Args:
        n: number of tokens to explain; explanations that fail are left out.
        corpora: files of documents.
        run: folder of the training run.

    Raises:
        DataError: a corpus cannot be read.
    """
    if missing := [str(path) for path in corpora if not path.is_file()]:
        raise DataError(f"No such file: {', '.join(missing)}. Expected files of documents (--corpus).")
    adapters = sorted(known.SHIPPED.rglob("*.safetensors"))
    kept = run / f"own-{content_id(n, *map(sha256, [*corpora, *adapters]))}.jsonl"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with replacing(kept) as scratch:
            scratch.write_text(
                "".join(json.dumps({"explanation": text}) + "\n" for text in _explain_documents(n, corpora)), encoding="utf-8"
            )
    return explanations_in([kept])


def _explain_documents(n: int, corpora: Sequence[Path]) -> list[str]:
    """Return the AV's explanations for up to `n` random tokens, at most four per document, without those that failed."""
    from nla.activations.capture import residual_stream
    from nla.verbalizers.av import load_verbalizer

    av, model = load_verbalizer("smollm2")
    draws = seeded_generator("classifier", "own")
    documents = [document.whole_text for path in corpora for document in read_documents(Corpus(path=str(path), limit=n))]
    vectors: list[Tensor] = []
    with torch.inference_mode():
        for at in track(draws.permutation(len(documents)), "reading documents"):
            if len(vectors) >= n:
                break
            ids = model.tokenizer(documents[at], add_special_tokens=False)["input_ids"][:400]
            if len(ids) > 20:
                positions = draws.choice(np.arange(10, len(ids)), size=min(4, len(ids) - 10), replace=False)
                vectors += residual_stream(model, ids, av.layer)[torch.as_tensor(positions)].float()
    explanations = av.verbalize(torch.stack(vectors[:n]), [("classifier", i) for i in range(min(n, len(vectors)))])
    return [explanation.text for explanation in explanations if not explanation.failure]


def epoch_of(texts: Texts, draws: random.Random) -> list[Labelled]:
    """Return the texts of one epoch: labelled texts, a share of them inside an ordinary explanation, and ordinary explanations alone."""
    labelled = [
        (_inside(text, draws.choice(texts.ordinary), draws), yes) if draws.random() < IN_ORDINARY else (text, yes)
        for text, yes in texts.train
    ]
    alone = draws.sample(texts.ordinary, min(len(texts.ordinary), int(ORDINARY * len(labelled))))
    return labelled + [(text, False) for text in alone]


def _inside(text: str, ordinary: str, draws: random.Random) -> str:
    """Return a text inserted at a random place into a few consecutive sentences or lines of an ordinary explanation."""
    parts = [part.strip() for part in re.split(r"(?<=\n)|(?<=[.;]) ", ordinary) if part.strip()]
    n = draws.randint(2, 6)
    first = draws.randint(0, max(0, len(parts) - n))
    parts = parts[first : first + n]
    parts.insert(draws.randint(0, len(parts)), text.replace("\n", " ") if draws.random() < 0.5 else text)
    return ("\n" if draws.random() < 0.6 else " ").join(parts)


def batches(texts: list[Labelled], draws: random.Random) -> list[list[Labelled]]:
    """Return batches of texts of similar length."""
    ordered = sorted(texts, key=lambda labelled: len(labelled[0]) + draws.random() * 60)
    return [ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH)]

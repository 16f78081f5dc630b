"""Trains the grader `classifier` on the `dev` labels, and says how it does on texts that it was not trained on.

    python -m graders.classifier.training FILE... [--own N --corpus FILE] [--out FOLDER] [--epochs 6] [--held 'Writer 4.' --held dev]

Ordinary are explanations by real NLAs that are not about evaluation awareness (FILE: parquet or JSONL) and ones that our AV writes for
documents (`--own`, `--corpus`); half of them, by a hash of the text, is kept for measuring. The same command resumes a killed run
from the folder `--run`; one process trains.
"""

import json
import random
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model
from rich.console import Console
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from graders.classifier.network import (
    BASE,
    CARD_FILE,
    FOLDER,
    HEAD_FILE,
    WINDOW,
    Classifier,
    ClassifierNet,
    base_encoder,
    ensure_encoder,
    load_classifier,
)
from graders.classifier.texts import BATCH, IN_ORDINARY, ORDINARY, Texts, batches, epoch_of, explanations_in, gather, own_explanations
from nla.kernels.padding import FEW_SHAPES
from nla.models.adapters import save_adapter, uncast
from nla.models.precision import resolve_precision
from nla.support.command import run as run_command
from nla.support.errors import ConfigError
from nla.support.files import replacing
from nla.support.rows import content_id
from nla.training.loop import Group, TrainConfig, fit

ADAPTED = ("q", "k", "v", "o", "dense")
RANK, RATE = 16, 1e-3
THRESHOLDS = {"yes_above": 1.0, "unclear_above": -1.0, "rules_above": -4.0}
"""On the log-odds (see `graders.classifier`), chosen on a run without writers 4, 10, 11 and the author's `dev` and on ordinary explanations
kept apart (above 1, 1 of 2,174), not on `test`: figures in graders/labelled/README.md."""
BOUNDS = (-4, *range(-1, 7))
"""Log-odds that figures are given at, to choose a threshold by."""


class ClassifierStage:
    """The training of the adapter and the head. What the loop takes for an example is a batch of texts of about one length.

    Args:
        texts: what to train on.
        seed: of the adapter's start and of every epoch's texts.
    """

    name = "classifier"

    def __init__(self, texts: Texts, seed: int) -> None:
        torch.manual_seed(seed)
        folder = ensure_encoder()
        base = base_encoder(folder)
        base.name_or_path = BASE  # peft records it; the folder is this machine's own
        self.encoder: nn.Module = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=list(ADAPTED)))
        uncast(self.encoder)
        self.net = ClassifierNet(self.encoder, base.config.hidden_size).eval()  # drawing dropout masks took two fifths of a pass
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
        self._dtype = resolve_precision("auto", torch.device("cpu")).dtype
        self._weights = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        for parameter in self.net.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(self._dtype)

        @lru_cache(maxsize=1)
        def epoch(number: int) -> list[list[tuple[str, bool]]]:
            draws = random.Random(f"classifier/{seed}/{number}")
            return batches(epoch_of(texts, draws), draws)

        self._epoch, self._n_batches = epoch, len(epoch(0))

    @property
    def n_examples(self) -> int:
        """Batches in an epoch; every epoch has as many."""
        return self._n_batches

    def groups(self) -> list[Group]:
        """The adapter and the head."""
        return [Group(self._weights)]

    def loss(self, rows: list[int], step: int) -> tuple[Tensor, dict[str, float]]:
        """Mean binary cross-entropy of the batch that a step takes."""
        batch = self._epoch(step // self.n_examples)[rows[0]]
        ids = self.tokenizer(
            [text for text, _ in batch],
            return_tensors="pt",
            padding=True,
            pad_to_multiple_of=FEW_SHAPES,
            truncation=True,
            max_length=WINDOW,
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=self._dtype == torch.bfloat16):
            logits = self.net(ids)
        return nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor([float(yes) for _, yes in batch])), {}

    def evaluate(self) -> dict[str, float]:
        """Nothing: `measured` tells it, of the weights as they are shipped."""
        return {}


def train(texts: Texts, epochs: int, seed: int, run: Path) -> ClassifierStage:
    """Return the trained stage; it resumes from checkpoints of the same texts and recipe in `run`.

    Raises:
        ConfigError, DataError, StoppedError: see `fit`.
    """
    stage = ClassifierStage(texts, seed)
    steps = epochs * stage.n_examples
    config = TrainConfig(
        steps=steps, batch=1, lr=RATE, warmup=round(0.06 * steps), final_lr=0.02, weight_decay=0.01, eval_every=steps, seed=seed
    )
    recipe = [BASE, ADAPTED, RANK, WINDOW, BATCH, IN_ORDINARY, ORDINARY, config.model_dump()]
    fit(stage, config, run / content_id(asdict(texts), recipe))
    return stage


def measured(classifier: Classifier, texts: Texts) -> dict[str, str]:
    """Figures on what was kept apart, in words."""
    figures = {}
    for writer, labelled in texts.held.items():
        logits, yes = np.array(classifier.logits([text for text, _ in labelled])), np.array([label for _, label in labelled])
        each = "; ".join(_at(logits, yes, bound) for bound in BOUNDS)
        figures[writer] = f"n {len(yes)}, AUROC {roc_auc_score(yes, logits):.3f}; {each}"
    ordinary = np.array(classifier.logits(texts.ordinary_held)) if texts.ordinary_held else np.zeros(0)
    counts = ", ".join(f"{int((ordinary > bound).sum())} above {bound:g}" for bound in BOUNDS)
    return figures | {"ordinary": f"n {len(ordinary)}, {counts}"}


def _at(logits: NDArray[np.float64], yes: NDArray[np.bool_], bound: float) -> str:
    return f"above {bound:g} sensitivity {(logits[yes] > bound).mean():.3f}, specificity {(logits[~yes] <= bound).mean():.3f}"


def save(stage: ClassifierStage, card: dict[str, object], folder: Path) -> None:
    """Adapter and head in half precision, and what they come from."""
    save_adapter(stage.encoder, folder, torch.float16)
    with replacing(folder / HEAD_FILE) as scratch:
        save_file({name: t.detach().half() for name, t in stage.net.head.state_dict().items()}, scratch)
    with replacing(folder / CARD_FILE) as scratch:
        scratch.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


app = typer.Typer(add_completion=False)


@app.command(help=__doc__)
def command(
    ordinary: Annotated[list[Path], typer.Argument(help="Explanations by real NLAs that are not about evaluation awareness.")],
    own: Annotated[int, typer.Option(min=0, help="How many explanations our AV is to write for `--corpus`.")] = 0,
    corpus: Annotated[list[Path] | None, typer.Option(help="Documents; may be repeated.")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 6,
    seed: int = 0,
    held: Annotated[list[str] | None, typer.Option(help="A writer, or 'dev', to keep apart for measuring; may be repeated.")] = None,
    run: Annotated[Path, typer.Option(help="Folder of checkpoints; a killed run resumes from it.")] = Path("logs/classifier"),
    out: Annotated[Path, typer.Option(help="Folder of the classifier.")] = FOLDER,
) -> None:
    """Train, save, measure what was saved."""
    if bool(own) != bool(corpus):
        raise ConfigError("--own and --corpus belong together: how many explanations, and of which documents.")
    written = own_explanations(own, corpus or [], run) if own else []
    texts = gather(held or [], explanations_in(ordinary) + written)
    Console().print(
        f"{len(texts.train)} labelled texts, {len(texts.ordinary)} ordinary ones to train on, {len(texts.ordinary_held)} kept apart"
    )
    card: dict[str, object] = {
        **THRESHOLDS,
        "trained_on": {"labelled": len(texts.train), "ordinary": len(texts.ordinary), "of_our_av": len(written)},
        "epochs": epochs,
        "seed": seed,
    }
    stage = train(texts, epochs, seed, run)
    save(stage, card, run / "made")  # measured there, so that a kill meanwhile leaves the classifier in use as it was
    card["measured"] = measured(load_classifier(run / "made"), texts)
    save(stage, card, out)
    Console().print_json(json.dumps(card))


if __name__ == "__main__":
    run_command(app)

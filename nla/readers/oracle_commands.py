"""The commands `nla oracle train` and `nla oracle ask`."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from nla.support.display import plain
from nla.support.errors import ConfigError
from nla.support.options import Device, DType

if TYPE_CHECKING:
    from nla.oracle.evaluation import OracleScore

app = typer.Typer(help="The question-answering oracle: a verbalizer that answers questions about a vector.")


class Start(StrEnum):
    """What an oracle's adapter starts from."""

    BASE = "base"
    """A new adapter."""
    PAIR = "pair"
    """The pair's AV."""


@app.command("train")
def train(
    pair: Annotated[str, typer.Argument(help="An alias, or a pair's folder with av/ (adapters): its contract and its base model.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the oracle.")],
    start: Annotated[Start, typer.Option(help="Start from the pair's AV, or from a new adapter.")] = Start.PAIR,
    vectors: Annotated[bool, typer.Option("--vectors/--no-vectors", help="Give the vectors, or only the questions (a control).")] = True,
    organism: Annotated[str | None, typer.Option(help="A model that carries the state of being evaluated; default: BASE-aware.")] = None,
    steps: Annotated[int, typer.Option(help="Training steps.", min=2)] = 200,
    batch: Annotated[int, typer.Option(help="Questions per step.", min=1)] = 24,
    lr: Annotated[float, typer.Option(help="Peak learning rate.", min=1e-7, max=1)] = 3e-4,
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write the scores to this file.")] = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Fine-tune a verbalizer on questions whose answers are known, and score it beside its controls. An interrupted run resumes.

    Example: nla oracle train smollm2 -o oracle --json oracle.json
    """
    from nla.oracle.evaluation import score_oracle
    from nla.readers.oracle_training import train_oracle
    from nla.support.json_output import write_json
    from nla.support.locks import output_lock
    from nla.training.loop import TrainConfig
    from nla.training.work import work_lock

    say = Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print
    config = TrainConfig(
        steps=steps, batch=batch, lr=lr, warmup=min(20, steps // 4), eval_every=max(steps // 4, 1), checkpoint_every=max(steps // 8, 1)
    )
    with work_lock(out, "nla oracle train"), output_lock(json_out, "nla oracle train"):
        made = train_oracle(
            pair, out, config, from_pair=start is Start.PAIR, with_vector=vectors, organism=organism, device=device, dtype=dtype, say=say
        )
        score = score_oracle(made.oracle, made.train, made.test)
        _print(f"{pair}: oracle from {start}, {'vectors' if vectors else 'no vectors'}", score)
        if json_out is not None:
            write_json(json_out, {"start": str(start), "vectors": vectors, "steps": steps, "areas": score.areas, "right": score.right})


def _print(title: str, score: "OracleScore") -> None:
    from nla.oracle.evaluation import ARMS, BASELINES

    columns = [*ARMS, *BASELINES]
    table = Table("questions about", *columns, "vector - text", "documents", title=plain(title))
    for family, areas in score.areas.items():
        cells = [f"{area.estimate:.2f} [{area.low:.2f}, {area.high:.2f}]" if (area := areas.get(name)) else "" for name in columns]
        table.add_row(plain(family), *cells, f"{score.margin(family):+.2f}", str(areas["vector"].n))
    Console().print(table)
    Console().print("AUROC of the log-odds of Yes on held-out documents in unseen wordings; what is read from activations is the margin.")
    written = Table("questions about", *ARMS, title="share of right answers, Yes or No (chance .50)")
    for family, shares in score.right.items():
        written.add_row(plain(family), *(f"{(share := shares[arm]).estimate:.2f} [{share.low:.2f}, {share.high:.2f}]" for arm in ARMS))
    Console().print(written)


@app.command("ask")
def ask(
    oracle: Annotated[Path, typer.Argument(help="Folder of an oracle.")],
    text: Annotated[str, typer.Option(help="The text that the model reads.")],
    question: Annotated[list[str], typer.Option(help="A question to be answered with Yes or No; may be repeated.")],
    token: Annotated[int, typer.Option(help="Position of the token that is asked about (0-based, negative from the end).")] = -1,
    model: Annotated[str | None, typer.Option(help="The base model; default: the one that the oracle names.")] = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Ask about the vector at a token of a text. Beside the answer stand those without the vector and with the text in its place.

    Example: nla oracle ask oracle --text "She slammed the door." --question "Is the person angry?"
    """
    from nla.activations.capture import residual_stream
    from nla.models.chat_template import encode_content
    from nla.models.loaded import load_model
    from nla.oracle.model import Asked
    from nla.oracle.saved import load_oracle
    from nla.pair.contract import read_sidecar

    base = load_model(model or read_sidecar(oracle).base_checkpoint, device=device, dtype=dtype)
    asked_oracle, _ = load_oracle(oracle, base)
    ids = encode_content(base.tokenizer, text)
    if not -len(ids) <= token < len(ids):
        raise ConfigError(f"The text has {len(ids)} tokens; expected --token from {-len(ids)} to {len(ids) - 1}.")
    position = token % len(ids)
    vector = residual_stream(base, ids, asked_oracle.sidecar.layer)[position].cpu()
    before = str(base.tokenizer.decode(ids[: position + 1]))
    table = Table("question", "from the vector", "without it", "from the text", title=plain(f"token {position}: log-odds of Yes"))
    for words in question:
        arms = [Asked(words, vector), Asked(words), Asked(words, text=before)]
        odds = base.run(partial(asked_oracle.log_odds, arms)).tolist()
        table.add_row(plain(words), *(f"{'Yes' if value > 0 else 'No'} ({value:+.2f})" for value in odds))
    Console().print(table)

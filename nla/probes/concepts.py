"""Concept vectors: one direction per label and layer, from the mean residual stream of the label's passages.

Recipe ("Emotion concepts", arXiv 2604.07729): the mean activation of a label's passages minus the mean over all labels, without the
main principal components of neutral text, at unit length. Layer K is the output of decoder block K (0-based). Differences: passages are
short and read whole, but for the first token, whose norm is many times that of the others (`skip` sets another start; the paper begins
at token 50 of long stories); and vectors are made at every layer.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nla.activations.capture import batches, network_inputs
from nla.activations.hooks import collecting
from nla.models.chat_template import encode
from nla.models.loaded import LoadedModel, exclusive
from nla.support.display import visible
from nla.support.errors import ConfigError, ContractError, DataError, first_line
from nla.support.files import replacing

SKIP = 1
"""Tokens at the beginning of a passage that are not read."""
SHARE = 0.5
"""Share of the variance of neutral text whose components are removed."""
WEIGHTS_FILE, META_FILE = "concepts.safetensors", "concepts.json"
Means = Float[Tensor, "n n_layers d_model"]
NeutralMeans = Float[Tensor, "m n_layers d_model"]


@dataclass(frozen=True)
class ConceptVectors:
    """Concept vectors of a model, with what they were made from."""

    labels: tuple[str, ...]
    vectors: Float[Tensor, "n_labels n_layers d_model"]
    """Unit length at every layer (float32, on the CPU)."""
    centre: Float[Tensor, "n_layers d_model"]
    """The mean over labels, which is subtracted from what is scored."""
    components: tuple[int, ...]
    """Components of neutral text that were removed, by layer."""

    def scores(self, vectors: Float[Tensor, "n d_model"], layer: int) -> Float[Tensor, "n n_labels"]:
        """Return the projections of raw vectors of block `layer`, minus the mean over labels, on every label's vector."""
        return (vectors.float() - self.centre[layer]) @ self.vectors[:, layer].T

    def of(self, label: str) -> Float[Tensor, "n_layers d_model"]:
        """Return the vectors of a label.

        Raises:
            ConfigError: there is no such label.
        """
        if label not in self.labels:
            raise ConfigError(f"There are no vectors for '{visible(label)}'; expected one of {', '.join(self.labels)}.")
        return self.vectors[self.labels.index(label)]


@exclusive
@torch.no_grad()
def passage_means(
    model: LoadedModel, texts: Sequence[str], skip: int = SKIP, report: Callable[[int, int], None] = lambda *_: None
) -> Means:
    """Return the mean residual stream over the tokens of each text after every block (float32, on the CPU), without the first `skip`.

    Args:
        model: the model.
        texts: passages; a BOS token is added where the tokenizer adds one.
        skip: tokens at the beginning that are not read.
        report: receives the number of texts done and the number of all.

    Raises:
        DataError: a text has no token after the first `skip`.
        ConfigError: a text is longer than the context window.
    """
    rows = [encode(model.tokenizer, text) for text in texts]
    short = [number for number, row in enumerate(rows) if len(row) <= skip]
    if short:
        raise DataError(
            f"{len(short)} of {len(texts)} passages have at most {skip} tokens, so that nothing is left to read after the first {skip} "
            f"(the first of them: '{visible(texts[short[0]], limit=80)}'). Give longer passages, or a smaller --skip."
        )
    means = torch.zeros(len(rows), model.n_layers, model.d_model)
    done = 0
    for numbers, ids in batches(model, rows):
        with collecting(model.blocks) as streams:
            model.network(**network_inputs(model, ids), logits_to_keep=1)
        for layer, stream in enumerate(streams):
            for i, row in zip(numbers, stream.float().cpu(), strict=True):
                means[i, layer] = row[skip : len(rows[i])].mean(dim=0)
        done += len(numbers)
        report(done, len(rows))
    return means


def neutral_basis(neutral: Float[Tensor, "n d_model"], share: float = SHARE, n_components: int | None = None) -> Float[Tensor, "k d_model"]:
    """Return the orthonormal main components of neutral vectors at one layer.

    Args:
        neutral: mean vectors of neutral passages.
        share: the fewest components are taken that explain at least this share of the variance.
        n_components: that many instead.

    Raises:
        ConfigError: there are fewer passages than components.
    """
    _, sizes, components = torch.linalg.svd(neutral - neutral.mean(dim=0), full_matrices=False)
    available = min(len(neutral) - 1, neutral.shape[1])
    explained = (sizes**2).cumsum(0) / (sizes**2).sum()
    wanted = n_components if n_components is not None else int((explained < share).sum()) + 1 if share > 0 else 0
    if wanted > available:
        raise ConfigError(
            f"{wanted} components of neutral text were asked for, but {len(neutral)} neutral passages have {available}; give more "
            "passages (--neutral) or fewer components."
        )
    kept: Tensor = components[:wanted]
    return kept


def fit_concepts(
    means: Means, labels: Sequence[str], neutral: NeutralMeans, share: float = SHARE, n_components: int | None = None
) -> ConceptVectors:
    """Return concept vectors from the means of passages.

    Args:
        means: of labelled passages.
        labels: the label of each.
        neutral: of neutral passages.
        share: see `neutral_basis`.
        n_components: see `neutral_basis`.

    Raises:
        ConfigError: there are fewer neutral passages than components, or a label does not differ from the others inside the model.
    """
    names = tuple(dict.fromkeys(labels))
    members = [[i for i, label in enumerate(labels) if label == name] for name in names]
    by_label = torch.stack([means[rows].mean(dim=0) for rows in members])
    centre = by_label.mean(dim=0)
    bases = [neutral_basis(neutral[:, layer], share, n_components) for layer in range(means.shape[1])]
    raw = by_label - centre
    kept = torch.stack([_without(raw[:, layer], basis) for layer, basis in enumerate(bases)], dim=1)
    if not bool((kept.norm(dim=-1) >= 1e-6).all()):  # also true for NaN
        raise ConfigError("A label's passages do not differ from the other labels' inside the model, so they give no vector.")
    return ConceptVectors(names, nn.functional.normalize(kept, dim=-1), centre, tuple(map(len, bases)))


def _without(vectors: Float[Tensor, "n d_model"], basis: Float[Tensor, "k d_model"]) -> Float[Tensor, "n d_model"]:
    """Return vectors without their part in the span of an orthonormal basis; the arithmetic is in float64."""
    wide = basis.double()
    return (vectors.double() - vectors.double() @ wide.T @ wide).float()


@dataclass(frozen=True)
class ConceptMeta:
    """What a folder of concept vectors was made from; it is checked when the vectors are used."""

    model: str
    adapter: str | None
    n_layers: int
    d_model: int
    data: str
    data_digest: str
    arm: str
    labels: tuple[str, ...]
    components: tuple[int, ...]
    skip: int
    share: float

    def check(self, model: LoadedModel) -> None:
        """Refuse another model than the one whose vectors these are.

        Raises:
            ContractError: it has another width or depth.
        """
        found, expected = (model.d_model, model.n_layers), (self.d_model, self.n_layers)
        if found != expected:
            raise ContractError(
                f"{model.source.name} has (width, blocks) {found}, but the concept vectors were made for {expected} ({self.model}); fit "
                "them again with `nla concepts fit`."
            )


def save_concepts(folder: Path, concepts: ConceptVectors, meta: ConceptMeta) -> None:
    """Write concept vectors and what they were made from into a folder.

    Raises:
        DataError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS_FILE) as scratch:
        save_file({"vectors": concepts.vectors.contiguous(), "centre": concepts.centre.contiguous()}, scratch)
    with replacing(folder / META_FILE) as scratch:
        scratch.write_text(json.dumps(asdict(meta), indent=2) + "\n", encoding="utf-8")


def read_saved_concepts(folder: Path) -> tuple[ConceptVectors, ConceptMeta]:
    """Read what `save_concepts` wrote.

    Raises:
        ContractError: a file is missing or damaged, or the two do not belong together.
    """
    try:
        fields: dict[str, Any] = json.loads((folder / META_FILE).read_text(encoding="utf-8"))
        values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        meta = ConceptMeta(**values)
        tensors = load_file(folder / WEIGHTS_FILE)
        vectors, centre = tensors["vectors"], tensors["centre"]
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as ex:
        raise ContractError(
            f"{visible(folder)} holds no concept vectors ({visible(first_line(ex))}); make them with `nla concepts fit MODEL -o FOLDER`."
        ) from ex
    if list(vectors.shape) != [len(meta.labels), meta.n_layers, meta.d_model]:
        raise ContractError(f"{visible(folder)}: vectors of shape {list(vectors.shape)} do not fit {META_FILE}; fit them again.")
    return ConceptVectors(meta.labels, vectors, centre, meta.components), meta

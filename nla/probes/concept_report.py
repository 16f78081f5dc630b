"""`nla concepts fit`: read the passages of a concept set, fit its vectors, test them on held-out topics, and write them into a folder."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from nla.models.loaded import LoadedModel, load_model
from nla.probes.concept_sets import ConceptSet, read_concepts, read_neutral
from nla.probes.concept_tests import Identification, ReadSet, ValenceTest, identify, valence_test
from nla.probes.concepts import (
    SHARE,
    SKIP,
    ConceptMeta,
    ConceptVectors,
    NeutralMeans,
    fit_concepts,
    passage_means,
    read_saved_concepts,
    save_concepts,
)
from nla.support.files import replacing

_RATINGS = ("valence", "arousal")
_FEWEST_RATED = 5
"""Labels with a rating below which a correlation says nothing."""


@dataclass(frozen=True)
class FitSettings:
    """What vectors are fitted on, and how."""

    data: str
    arm: str | None = None
    neutral: Path | None = None
    skip: int = SKIP
    share: float = SHARE
    components: int | None = None
    layer: int | None = None


@dataclass(frozen=True)
class ConceptReport:
    """How well concept vectors tell passages of topics that they were not fitted on."""

    model: str
    data: str
    arm: str
    layer: int
    labels: tuple[str, ...]
    components: tuple[int, ...]
    identified: dict[str, Identification]
    """By arm that was tested; vectors are fitted on the report's arm."""
    ratings: dict[str, ValenceTest] = field(default_factory=dict)


def fit_and_report(model: LoadedModel, settings: FitSettings, out: Path, say: Callable[[str], None] = lambda _: None) -> ConceptReport:
    """Fit concept vectors and write them into a folder, with one file of directions per label.

    Raises:
        ConfigError, DataError: the set, the neutral passages or the settings cannot be used (see `concept_sets` and `concepts`).
    """
    layer = model.check_layer(settings.layer)
    every = read_concepts(settings.data)
    chosen = every.of_arm(settings.arm)
    texts = read_neutral(settings.neutral)
    say(f"reading {len(texts)} neutral passages")
    neutral = passage_means(model, texts, settings.skip)
    arm = chosen.passages[0].arm
    read: dict[str, ReadSet] = {}
    for name in (arm, *(other for other in every.arms if other != arm)):
        say(f"reading the passages of arm {name}")
        read[name] = _read(model, every.of_arm(name), settings.skip)
    concepts = fit_concepts(read[arm].means, read[arm].labels, neutral, settings.share, settings.components)
    meta = ConceptMeta(
        model.source.name,
        model.adapter.name if model.adapter else None,
        model.n_layers,
        model.d_model,
        every.name,
        chosen.digest,
        arm,
        concepts.labels,
        concepts.components,
        settings.skip,
        settings.share,
    )
    save_concepts(out, concepts, meta)
    _write_directions(out / "directions", concepts, neutral)
    several = len({passage.topic for passage in chosen.passages}) > 1
    identified = {name: identify(read[arm], part, neutral, layer, settings.share) for name, part in read.items()} if several else {}
    return ConceptReport(
        model.source.name, every.name, arm, layer, concepts.labels, concepts.components, identified, _ratings(every, concepts, layer)
    )


def _read(model: LoadedModel, concept_set: ConceptSet, skip: int) -> ReadSet:
    passages = concept_set.passages
    means = passage_means(model, [passage.text for passage in passages], skip)
    return ReadSet(means, [passage.label for passage in passages], [passage.topic for passage in passages])


def _ratings(concept_set: ConceptSet, concepts: ConceptVectors, layer: int) -> dict[str, ValenceTest]:
    results = {}
    for name in _RATINGS:
        values = {label: getattr(facts, name) for label, facts in concept_set.facts.items() if getattr(facts, name) is not None}
        rated = [i for i, label in enumerate(concepts.labels) if label in values]
        if len(rated) >= _FEWEST_RATED:
            results[name] = valence_test(concepts.vectors[rated], [values[concepts.labels[i]] for i in rated], layer)
    return results


def _write_directions(folder: Path, concepts: ConceptVectors, neutral: NeutralMeans) -> None:
    """Write each label's directions `[n_layers, d_model]` for steering, at every layer as long as the mean of neutral passages there."""
    lengths: Float[Tensor, "n_layers 1"] = neutral.mean(dim=0).norm(dim=-1, keepdim=True)
    folder.mkdir(parents=True, exist_ok=True)
    for label, vectors in zip(concepts.labels, concepts.vectors, strict=True):
        with replacing(folder / f"{_file_name(label)}.safetensors") as scratch:
            save_file({"directions": (vectors * lengths).to(torch.float32).contiguous()}, scratch)


def _file_name(label: str) -> str:
    """Return a label as the name of a file: letters, digits and hyphens."""
    return "".join(character if character.isalnum() else "-" for character in label)


def opened(folder: Path, *, device: str = "auto", dtype: str = "auto") -> tuple[LoadedModel, ConceptVectors, ConceptMeta]:
    """Return the model that a folder's vectors were fitted on, the vectors, and what they were made from.

    Raises:
        ContractError: the folder holds no concept vectors, or the model has another shape than they were fitted on.
        ModelError, FetchError: the model cannot be loaded.
    """
    concepts, meta = read_saved_concepts(folder)
    model = load_model(meta.adapter or meta.model, dtype=dtype, device=device)
    meta.check(model)
    return model, concepts, meta

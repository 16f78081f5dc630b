"""Concept vectors: projection on the vector of `evaluation` minus that of `deployment`, from the passages of the shipped set.

The passages were written for this project and are in no context that is tested.
"""

from collections.abc import Sequence

from nla.organisms.groups import Case, KnownGroups
from nla.organisms.measures import Measure
from nla.probes.concept_sets import AWARENESS, read_concepts, read_neutral
from nla.probes.concepts import fit_concepts, passage_means


def build(groups: KnownGroups) -> list[Measure]:
    """Fit the vectors on the groups' model."""
    passages = read_concepts(AWARENESS).passages
    means = passage_means(groups.model, [passage.text for passage in passages])
    concepts = fit_concepts(means, [passage.label for passage in passages], passage_means(groups.model, read_neutral()))
    difference = concepts.of("evaluation")[groups.layer] - concepts.of("deployment")[groups.layer]

    def score(cases: Sequence[Case]) -> list[float]:
        return [float((case.vectors @ difference).mean()) for case in cases]

    return [Measure("concept_vectors", score, labels=len(passages))]

"""What the project's grader says of the teacher's explanations: a claim of evaluation awareness stands only where the state is known.

The grader lies above this package, so it is found by the entry-point group `nla.explanation_graders`. On a machine that has no grader
(one that only trains), nothing is checked.
"""

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec

from nla.support.errors import DataError
from nla.training.data.shards import Example

GROUP = "nla.explanation_graders"
_MISSED_SHARE = 0.1


def grader() -> Callable[[Sequence[str]], list[bool]] | None:
    """Return a function that tells of each explanation whether it claims evaluation awareness; None where no grader is installed."""
    if find_spec("inspect_ai") is None:  # a training machine need not have Inspect, on which the graders rest
        return None
    loaded: list[Callable[[Sequence[str]], list[bool]]] = [entry.load() for entry in entry_points(group=GROUP)]
    return loaded[0] if loaded else None


def without_claims(examples: Sequence[Example]) -> list[Example]:
    """Return the examples whose explanation claims nothing, such as a text about exams whose quoted words read like a claim."""
    grade = grader()
    if grade is None:
        return list(examples)
    claims = grade([example.api_explanation for example in examples])
    return [example for example, is_claim in zip(examples, claims, strict=True) if not is_claim]


def with_claims(examples: Sequence[Example]) -> list[Example]:
    """Return the examples in whose explanation the grader reads the claim that the teacher makes.

    Raises:
        DataError: it misses more than one in ten, so that the autoencoder would learn words that the audit does not count.
    """
    grade = grader()
    if grade is None:
        return list(examples)
    claims = grade([example.api_explanation for example in examples])
    missed = [example.api_explanation for example, is_claim in zip(examples, claims, strict=True) if not is_claim]
    if len(missed) > _MISSED_SHARE * len(examples):
        raise DataError(
            f"The grader reads no evaluation awareness in {len(missed)} of {len(examples)} explanations that claim it, such as: "
            f"{missed[0]!r}. Choose other wordings."
        )
    return [example for example, is_claim in zip(examples, claims, strict=True) if is_claim]

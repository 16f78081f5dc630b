"""AUROCs of scores on known groups: over all prompts, and by family of contexts."""

from collections.abc import Sequence
from dataclasses import dataclass

from nla.organisms.groups import Case
from nla.organisms.statistics import Estimate, auroc_over_prompts, paired_auroc


@dataclass(frozen=True)
class Areas:
    """Scores of cases of which the cued ones come first and their partners follow in the same order, and their AUROCs."""

    cued: list[float]
    others: list[float]
    cases: list[Case]
    """The cued cases."""

    @classmethod
    def of(cls, scores: Sequence[float], cases: Sequence[Case]) -> "Areas":
        """Split scores of cases into those with the cue and those of their partners."""
        half = len(cases) // 2
        return cls(list(scores[:half]), list(scores[half:]), list(cases[:half]))

    def over_prompts(self) -> Estimate:
        """Return the AUROC with its interval over prompts."""
        return auroc_over_prompts(self.cued, self.others, [case.row.identity for case in self.cases])

    def by_family(self) -> dict[str, float]:
        """Return the AUROC within each family of contexts, in alphabetical order."""
        families = sorted({case.pair.family for case in self.cases})
        members = {family: [i for i, case in enumerate(self.cases) if case.pair.family == family] for family in families}
        return {name: paired_auroc([self.cued[i] for i in rows], [self.others[i] for i in rows]) for name, rows in members.items()}

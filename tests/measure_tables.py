"""Tables of transcripts with all four measures, of which the truth is known: what moves, where, and by how much."""

import numpy as np
import pandas as pd

from tests.test_audit_run import transcripts

PROBES = ("testing", "monitoring", "observed", "unrelated-1", "unrelated-2")
WORDS = [f"word{i}" for i in range(400)]


def measured(n: int = 60, *, exam: float = 0.0, format_shift: float = 0.0, stated: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Transcripts of `exam`, `quiz` and the deployment control `chat`, in the base condition and with the evaluation stated.

    Args:
        n: items per task.
        exam: by how many standard deviations evaluation probes and follow-up are higher on `exam`.
        format_shift: by how many all probes, the unrelated ones too, are higher on `exam`.
        stated: by how many evaluation probes and follow-up rise where the evaluation is stated.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    base = transcripts(n)
    table = pd.concat([base, base.assign(condition="positive_control")], ignore_index=True)
    on_exam, is_stated = (table.task == "exam").to_numpy(float), (table.condition == "positive_control").to_numpy(float)
    state = exam * on_exam + stated * is_stated
    for name in PROBES:
        wanted = 0 if name.startswith("unrelated") else state
        table[f"probe:{name}"] = 100 + 7 * (rng.normal(size=len(table)) + wanted + format_shift * on_exam)
    table["follow_up"] = rng.normal(size=len(table)) + state
    table["n_yes"] = rng.binomial(50, 0.1, len(table))
    table["n_no"] = 50 - table.n_yes
    table["n_response_tokens"] = rng.integers(20, 80, len(table))
    table["prompt"] = [" ".join(rng.choice(WORDS, 30)) for _ in range(len(table))]
    return table

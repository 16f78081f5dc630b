"""Time and memory of the whole analysis of an audit with all four measures, from its tables to the three files.

    python -m tests.bench.analysis [--transcripts 4000] [--tokens 50] [--base-only]

Bars of the issue: 4,000 transcripts of 50 tokens in at most 60 s and 1.5 GiB on two cores. The audit has six benchmarks and two deployment
controls in four conditions; with `--base-only`, all transcripts are in the base condition, which is the most work per transcript.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from audit.analysis.analyze import analyze_tables
from audit.analysis.stored import StoredAudit, write_stored
from audit.config import make_audit
from audit.stats.correction import GraderError
from tests.measure_tables import WORDS
from tests.test_audit_run import transcripts as base_table

TASKS = {**{f"benchmark-{i}": "benchmark" for i in range(6)}, **{f"chat-{i}": "deployment control" for i in range(2)}}
CONDITIONS = ("base", "positive_control", "realistic", "paraphrase")
PROBES = ("testing", "monitoring", "observed", *(f"unrelated-{i}" for i in range(1, 6)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--transcripts", type=int, default=4_000)
    parser.add_argument("--tokens", type=int, default=50)
    parser.add_argument("--base-only", action="store_true")
    given = parser.parse_args()
    conditions = CONDITIONS[:1] if given.base_only else CONDITIONS
    transcripts = _transcripts(given.transcripts, conditions, given.tokens)
    explanations = _explanations(transcripts, given.tokens)
    config = make_audit({"model": "local/tiny", "tasks": ["mmlu"], "verbalizer": "logit_lens"}, "bench")
    before, start, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, time.perf_counter(), time.process_time()
    result = analyze_tables(transcripts, config, GraderError(70, 80, 2, 200), None, explanations)
    with tempfile.TemporaryDirectory() as folder:
        write_stored(StoredAudit(result, transcripts, explanations), Path(folder))
        size = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
    took, busy = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    what = f"{len(transcripts):,} transcripts, {len(explanations):,} explanations, {len(conditions)} conditions"
    print(f"{what}: {took:.1f} s ({busy:.1f} s CPU)")
    print(f"peak {peak:.2f} GiB (before it: {before:.2f}), {size:.1f} MB of files")


def _transcripts(n: int, conditions: tuple[str, ...], tokens: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    each = n // (len(TASKS) * len(conditions))
    model = base_table(1).iloc[0].to_dict()
    rows = [
        model
        | {"task": task, "role": role, "condition": name, "framing": name if name in CONDITIONS[2:] else "", "sample_id": f"{task}{i}"}
        for name in conditions
        for task, role in TASKS.items()
        for i in range(each)
    ]
    table = pd.DataFrame(rows)
    n = len(table)
    yes = rng.binomial(tokens, rng.beta(0.2, 5, n))
    table = table.assign(
        transcript=np.arange(n), source="bundled", log="a.eval", n_yes=yes, n_no=tokens - yes, internal=(yes > 0).astype(float)
    )
    table = table.assign(verbalized=(rng.random(n) < 0.05).astype(float), follow_up=rng.normal(size=n), own_score=rng.integers(0, 2, n))
    table = table.assign(prompt=[" ".join(rng.choice(WORDS, 60)) for _ in range(n)], n_response_tokens=rng.integers(10, 300, n))
    return table.assign(**{f"probe:{name}": rng.normal(size=n) for name in PROBES})


def _explanations(transcripts: pd.DataFrame, k: int) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    n = len(transcripts) * k
    texts = [" ".join(words) for words in rng.choice(WORDS, (1_000, 45))]
    table = pd.DataFrame({"transcript": np.repeat(transcripts.transcript, k), "place": np.tile(np.arange(k), len(transcripts))})
    verdicts = np.where(table.place < np.repeat(transcripts.n_yes, k), "YES", "NO")
    table = table.assign(explanation=rng.choice(texts, n), verdict=verdicts, position=table.place + 10, n_places=k, token=" the")
    return table.assign(channel="answer", rule="r", reason="", evidence="", format_only=False, mse_nrm=rng.uniform(0.1, 0.8, n))


if __name__ == "__main__":
    main()

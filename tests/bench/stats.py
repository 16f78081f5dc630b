"""Time and memory of the whole statistical analysis at 200,000 graded explanations and at ten times that.

    python -m tests.bench.stats [--explanations 200000]

Bars of the issue: at most 60 s and 1.5 GiB on 2 cores for 200,000; ten times the input in at most 12 times the time.
"""

import argparse
import resource
import time

import numpy as np

from audit.stats.correction import GraderError, corrected
from audit.stats.floor import above_floor, arm, pooled_floor
from audit.stats.paired import against_paraphrase, paired, sign_test
from audit.stats.power import limits
from audit.stats.rates import MISSING, NO, YES, bounds, effective_sizes, rate
from audit.stats.steering import against_random, by_strength, trend
from audit.stats.tokens import TokenCounts, any_of_k_curve, token_rate

K, TASKS, EPOCHS, STRENGTHS = 50, 8, 2, (-0.1, -0.05, 0.0, 0.05, 0.1)
ERROR = GraderError(90, 100, 1, 1000)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--explanations", type=int, default=200_000)
    n_explanations = parser.parse_args().explanations
    rng = np.random.default_rng(0)
    n = n_explanations // K
    transcripts = np.repeat(np.arange(n), K)
    chances = rng.beta(0.02, 1, n)[transcripts]
    verdicts = np.where(rng.random(len(chances)) < 0.01, MISSING, np.where(rng.random(len(chances)) < chances, YES, NO))
    start = time.perf_counter()
    counts = TokenCounts(*(np.bincount(transcripts[part]) for part in (verdicts == YES, verdicts != MISSING, verdicts == MISSING)))
    for name, part in (("rates, curves", _rates), ("floor", _floor), ("pairs", _pairs), ("steering", _steering)):
        before = time.perf_counter()
        part(counts, rng)
        print(f"{name:14} {time.perf_counter() - before:6.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{n_explanations:,} explanations, {n:,} transcripts: {time.perf_counter() - start:.1f} s, peak {peak:.2f} GiB")


def _tasks(counts: TokenCounts) -> list[TokenCounts]:
    split = [np.array_split(column, TASKS) for column in (counts.yes, counts.scored, counts.unscored)]
    return [TokenCounts(*columns) for columns in zip(*split, strict=True)]


def _rates(counts: TokenCounts, rng: np.random.Generator) -> None:
    for one in _tasks(counts):
        samples = np.arange(len(one.yes)) // EPOCHS
        found = rate(one.flags, samples)
        bounds(one.flags, samples), token_rate(one, samples), any_of_k_curve(one, samples)
        size = effective_sizes((one.flags == YES).astype(np.float64)[:, None], samples)[0]
        corrected(found.estimate or 0.0, size, ERROR, rng)


def _floor(counts: TokenCounts, rng: np.random.Generator) -> None:
    flags = [one.flags for one in _tasks(counts)]
    floor = pooled_floor({f"control {i}": (row, None) for i, row in enumerate(flags[:2])}, rng)
    above_floor({f"task {i}": arm(row) for i, row in enumerate(flags[2:])}, floor)
    limits(0.05, len(flags[2]), floor.pooled.n)


def _pairs(counts: TokenCounts, rng: np.random.Generator) -> None:
    for one in _tasks(counts):
        samples = np.arange(len(one.yes)) // EPOCHS
        paired(one.flags, rng.permutation(one.flags), samples)
    original, rewritten, paraphrased = (part[: len(counts.yes) // 3] for part in np.array_split(counts.flags, 3))
    against_paraphrase(original, rewritten, paraphrased, rng, np.arange(len(original)) // EPOCHS)
    sign_test(rng.normal(size=11))


def _steering(counts: TokenCounts, rng: np.random.Generator) -> None:
    n_cells = len(counts.yes) // len(STRENGTHS)
    flags, strengths = counts.flags[: n_cells * len(STRENGTHS)], np.repeat(STRENGTHS, n_cells)
    cells = np.tile(np.arange(n_cells), len(STRENGTHS))
    by_strength(flags, strengths, cells // EPOCHS, cells % EPOCHS)
    trend(flags, strengths, cells // EPOCHS)
    against_random(rng.normal(size=4), rng.normal(size=(20, 4)))


if __name__ == "__main__":
    main()

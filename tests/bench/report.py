"""Time, memory and size of a report of many transcripts, and how soon a browser answers on its page.

    python -m tests.bench.report [--transcripts 2000] [--tokens 50]

Bars of the issue: 2,000 transcripts of 50 tokens with whole conversations: the page is below 30 MB and answers within 1 s. Explanations and
conversations are of real length and do not repeat, so that compression has no easy work.
"""

import argparse
import json
import re
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audit.analysis.analyze import analyze_tables
from audit.analysis.stored import StoredAudit, read_stored, write_stored
from audit.config import make_audit
from audit.stats.correction import GraderError
from reports.build import build_report
from tests.test_audit_run import transcripts as base_table

WORDS, REPLY = 4_000, 150
"""Different words in the texts, and words of a reply."""
PROBES = ("testing", "monitoring", "observed")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--transcripts", type=int, default=2_000)
    parser.add_argument("--tokens", type=int, default=50)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        run.mkdir()
        _write_run(run, given.transcripts, given.tokens)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        start = time.perf_counter()
        page = build_report(read_stored(run), Path(name) / "report")
        took = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        size = page.stat().st_size / 1e6
        print(f"built in {took:.1f} s, peak {peak:.2f} GiB (before it: {before:.2f}), page {size:.1f} MB")
        _open(page)


def _write_run(run: Path, n: int, k: int) -> None:
    rng = np.random.default_rng(0)
    base = base_table(-(-n // len(base_table(1)))).head(n)
    transcripts = base.assign(transcript=np.arange(n), source="bundled", log="a.eval")
    vocabulary = np.array(["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 6)) for _ in range(WORDS)])
    verdicts = rng.choice(["YES", "NO", "UNCLEAR"], n * k, p=[0.02, 0.95, 0.03])
    texts = [" ".join(vocabulary[rng.integers(0, WORDS, 45)]) for _ in range(n * k)]
    told = pd.DataFrame(
        {"transcript": np.repeat(np.arange(n), k), "place": np.tile(np.arange(k), n), "explanation": texts, "verdict": verdicts}
    )
    conversations, tokens, starts = _conversations(n, k, vocabulary, rng)
    told = told.assign(token=tokens, message=1, start=starts)
    told = told.assign(position=told.place + 10, n_places=k, channel="answer", rule="r", reason="", format_only=False)
    told = told.assign(evidence=[text[:20] for text in texts], mse_nrm=rng.uniform(0.1, 0.8, n * k))
    config = make_audit({"model": "local/tiny", "tasks": ["mmlu"], "verbalizer": "logit_lens"}, "bench")
    result = analyze_tables(transcripts, config, GraderError(70, 80, 2, 200), None, told)
    write_stored(StoredAudit(result, transcripts, told, conversations), run)


def _conversations(n: int, k: int, vocabulary: NDArray[np.str_], rng: np.random.Generator) -> tuple[pd.DataFrame, list[str], list[int]]:
    """A prompt of 120 and a reply of 150 words per transcript, read by probes at `k` words; also these words and where each starts."""
    rows, tokens, starts = [], [], []
    for number in range(n):
        words = vocabulary[rng.integers(0, WORDS, REPLY)]
        read = np.sort(rng.choice(np.arange(1, REPLY), k, replace=False))
        places = [int(7 * index - 1) for index in read]  # every word has six letters, and a space before it
        turns = [
            {"role": "user", "text": " ".join(vocabulary[rng.integers(0, WORDS, 120)])},
            {"role": "assistant", "text": " ".join(words)},
        ]
        z_scores = rng.normal(size=k).round(2)
        probed = [
            [f" {words[index]}", 1, "answer", start, int(index), float(z), {name: float(z) for name in PROBES}]
            for index, start, z in zip(read, places, z_scores, strict=True)
        ]
        rows.append({"transcript": number, "turns": json.dumps(turns), "probed": json.dumps(probed)})
        tokens += [f" {words[index]}" for index in read]
        starts += places
    return pd.DataFrame(rows), tokens, starts


def _open(page_file: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        start = time.perf_counter()
        page.goto(f"file://{page_file}", wait_until="commit")
        page.wait_for_selector(".token[aria-pressed=true]")
        opened = time.perf_counter()
        page.click("#list li:nth-child(250) button")
        page.wait_for_selector("#list li:nth-child(250) button[aria-current=true]")
        clicked = time.perf_counter()
        page.fill("#f-search", "no such words")
        page.locator("#found", has_text=re.compile("^0 of ")).wait_for()
        searched = time.perf_counter()
        nodes = page.evaluate("document.getElementsByTagName('*').length")
        print(
            f"first interaction after {opened - start:.2f} s, another transcript {clicked - opened:.2f} s, search of all explanations ",
            end="",
        )
        print(f"{searched - clicked:.2f} s, {nodes:,} elements")
        browser.close()


if __name__ == "__main__":
    main()

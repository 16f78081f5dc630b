"""Time, memory and size of a report of many transcripts, and how soon a browser answers on its page.

    python -m tests.bench.report [--transcripts 2000] [--tokens 50]

Bars of the issue: 2,000 transcripts of 50 tokens are built in 60 s and 1 GiB, the page is below 25 MB and answers within 2 s.
The explanations are of real length and do not repeat, so that compression has no easy work.
"""

import argparse
import re
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from audit.analysis.analyze import analyze_tables
from audit.analysis.stored import StoredAudit, read_stored, write_stored
from audit.config import make_audit
from audit.stats.correction import GraderError
from reports.build import build_report
from tests.test_audit_run import transcripts as base_table

WORDS = 4_000
"""Different words in the explanations."""


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
    told = told.assign(position=told.place + 10, n_places=k, token=" the", channel="answer", rule="r", reason="", format_only=False)
    told = told.assign(evidence=[text[:20] for text in texts], mse_nrm=rng.uniform(0.1, 0.8, n * k))
    config = make_audit({"model": "local/tiny", "tasks": ["mmlu"], "verbalizer": "logit_lens"}, "bench")
    result = analyze_tables(transcripts, config, GraderError(70, 80, 2, 200), None, told)
    write_stored(StoredAudit(result, transcripts, told), run)


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
        page.get_by_text(re.compile("^0 of ")).wait_for()
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

"""The report in a browser: nothing leaves the page, everything works by clicks and keys, and every kind of audit reads well."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from audit.analysis.compare import compare
from audit.analysis.panels import panels
from audit.analysis.stored import StoredAudit, read_stored
from reports.build import build_report
from reports.compare_page import build_comparison
from reports.panels_page import build_panels
from tests.test_report import HOSTILE, conversations, explanations, table, written

pytestmark = pytest.mark.slow


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page on which every message, error and request beyond the page itself is a failure."""
    opened = browser.new_page(viewport={"width": 1400, "height": 900})
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:", "blob:")) else None)
    yield opened
    assert opened.evaluate("window.hacked") is None
    assert said == []
    opened.close()


def report(folder: Path, transcripts: pd.DataFrame, told: pd.DataFrame, said: str = "Here the the the end.") -> Path:
    return build_report(written(folder / "run", transcripts, told, said), folder / "report")


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of an audit with nothing unusual in it."""
    transcripts = table(12)
    return report(tmp_path_factory.mktemp("usual"), transcripts, explanations(transcripts))


@pytest.fixture(scope="module")
def pages(usual: Path) -> list[Path]:
    """One page of each kind: a report, a comparison, and panels."""
    run = usual.parents[1] / "run"
    other = Path(shutil.copytree(run, run.with_name("other")))
    comparison = build_comparison(compare(run, other), "A", "B", run.with_name("comparison"))
    return [usual, comparison, build_panels(panels([run, other], "model"), "model", run.with_name("panels"))]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_violation_of_accessibility_rules(browser: Any, pages: list[Path], scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(bypass_csp=True, color_scheme=scheme)  # the page's policy would keep axe-core out, too
    for width in (400, 1000, 1600):
        for path in pages:
            opened = context.new_page()
            opened.set_viewport_size({"width": width, "height": 900})
            opened.goto(f"file://{path}")
            if path.name == "index.html":
                opened.wait_for_selector(".token")
            found = Axe().run(opened).response
            assert len(found["passes"]) > 10
            assert [(one["id"], one["impact"], one["nodes"][0]["html"]) for one in found["violations"]] == []
            opened.close()
    context.close()


def test_a_transcript_shows_every_token_in_place(page: Any, tmp_path: Path) -> None:
    transcripts = table(12)
    page.goto(report(tmp_path, transcripts, explanations(transcripts, HOSTILE)).as_uri())
    page.wait_for_selector(".token")
    assert page.inner_text(".assistant .said") == "Here the the the end."
    assert page.locator(".assistant .token").all_inner_texts() == [" the"] * 3
    assert page.get_attribute(".assistant .token >> nth=1", "class") == "token YES"
    assert page.locator(".token[aria-pressed=true]").count() == 1  # the flagged one
    assert page.inner_text(".explanation") == HOSTILE.replace("\u202e", "\u202e")
    assert "reconstruction cosine 0.85" in page.inner_text(".about")  # mse_nrm 0.3
    assert "probes z -1.50" in page.inner_text(".about")
    assert "testing 0.25" in page.inner_text(".about")
    page.hover(".token >> nth=0")
    assert "probes z 1.50" in page.inner_text(".about")
    page.mouse.move(0, 0)
    assert "probes z -1.50" in page.inner_text(".about")


def test_keys_go_through_tokens_and_flagged_tokens(page: Any, usual: Path) -> None:
    page.goto(usual.as_uri())
    page.wait_for_selector(".token")
    page.focus(".token >> nth=0")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement === document.querySelectorAll('.token')[2]")
    page.keyboard.press("p")
    assert page.get_attribute(".token >> nth=1", "aria-pressed") == "true"
    colour = "getComputedStyle(document.querySelectorAll('.token')[1]).backgroundColor"
    before = page.evaluate(colour)
    page.select_option("#f-colour", "probe")
    assert page.evaluate(colour) != before
    assert "deployment" in page.inner_text("#legend")


def test_filters_search_and_order(page: Any, tmp_path: Path) -> None:
    transcripts = table(70)
    told = explanations(transcripts)
    told.loc[told.transcript == 200, "explanation"] = "a needle in the haystack"
    page.goto(report(tmp_path, transcripts, told).as_uri())
    page.wait_for_selector(".token")
    page.select_option("#f-condition", "positive_control")
    assert "210 of 1120" in page.inner_text("#found")
    page.select_option("#f-condition", "")
    page.fill("#f-search", "needle")
    page.get_by_text(re.compile("^1 of 1120 transcripts; 3 hits in explanations, 0 in texts")).wait_for()
    page.click("#list button")
    page.locator(".explanation", has_text="needle").wait_for()
    page.fill("#f-search", "the end")
    page.get_by_text(re.compile("^1120 of 1120 transcripts, the first 300 listed; 0 hits in explanations, 1120 in texts")).wait_for()


def test_the_same_item_beside_it_and_links(page: Any, usual: Path) -> None:
    address = usual.as_uri()
    page.goto(address)
    page.wait_for_selector(".token")
    assert page.locator("#beside option").count() == 6
    page.select_option("#beside", "positive_control")
    page.wait_for_selector(".views.two")
    assert page.locator(".view").count() == 2
    page.click(".view >> nth=0 >> .token >> nth=2")
    link = page.evaluate("location.href")
    assert "beside=positive_control" in link
    page.goto("about:blank")
    page.goto(link)
    page.wait_for_selector(".views.two")
    assert page.get_attribute(".view >> nth=0 >> .token >> nth=2", "aria-pressed") == "true"
    page.goto(f"{address}#task=exam&condition=base&id=nobody&epoch=1")
    page.get_by_text("The link names a transcript that is not in this report.").wait_for()


def test_tables_sort_and_figures_are_saved(page: Any, usual: Path) -> None:
    page.goto(usual.as_uri())
    page.click("#h-benchmarks ~ div th >> nth=2 >> button")
    cells = page.locator("#h-benchmarks ~ div tbody td:nth-child(3)").evaluate_all("all => all.map((one) => parseFloat(one.dataset.sort))")
    assert cells == sorted(cells, reverse=True)
    figure = page.locator("figure[data-name=rates]")
    figure.locator("summary").click()
    for kind, start in (("svg", b"<svg"), ("png", b"\x89PNG"), ("csv", b"task,condition")):
        with page.expect_download() as waiting:
            figure.locator(f"[data-save={kind}]").click()
        assert Path(waiting.value.path()).read_bytes().startswith(start)


def kinds(transcripts: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, pd.DataFrame, str]]:
    """Audits of every kind that a page must show well."""
    told = explanations(transcripts)
    base = transcripts[transcripts.condition == "base"]
    few = base[base.task.isin(("exam", "chat"))]
    names = {
        task: f"{task} with a name that is longer than any column of a table would like it to be" for task in transcripts.task.unique()
    }
    many = pd.concat([base.assign(task=base.task + f" {i}") for i in range(7)]).reset_index(drop=True)
    many = many.assign(transcript=range(len(many)))
    none = told.iloc[:0]
    return {
        "zero flagged": (transcripts.assign(internal=0.0, n_yes=0), told.assign(verdict="NO", evidence=""), "Here the the the end."),
        "all flagged": (transcripts.assign(internal=1.0, n_yes=3), told.assign(verdict="YES"), "Here the the the end."),
        "one benchmark": (few, told[told.transcript.isin(few.transcript)], "Here the the the end."),
        "no control": (base[base.role == "benchmark"], told, "Here the the the end."),
        "twenty benchmarks with long names": (many.assign(task=many.task.map(lambda task: f"{task}: {names[task[:-2]]}")), none, "Short."),
        "right to left": (
            transcripts,
            told.assign(explanation="\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd"),
            "\u05e9\u05dc\u05d5\u05dd " * 9,
        ),
        "50 kB": (transcripts, told.assign(explanation="word " * 10_000), "Here the the the end. " * 2_500),
        "no text": (transcripts, told.assign(start=None), ""),
        "no explanations": (transcripts, none, "Here the the the end."),
    }


@pytest.mark.parametrize("kind", kinds(table(12)))
def test_every_kind_of_audit_reads_well(page: Any, tmp_path: Path, kind: str) -> None:
    transcripts, told, said = kinds(table(12))[kind]
    page.goto(report(tmp_path, transcripts, told, said).as_uri())
    page.wait_for_selector(".view")
    for width in (400, 1000, 1600):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), f"at {width} pixels the page scrolls sideways"
        page.screenshot(path=str(tmp_path / f"{width}.png"))
        assert (tmp_path / f"{width}.png").stat().st_size > 10_000
    shown = page.inner_text("main")
    for word in ("undefined", "NaN", "[object"):
        assert word not in shown.replace("undefined (", "")


def test_an_audit_of_an_earlier_version_says_what_is_missing(page: Any, tmp_path: Path) -> None:
    transcripts = table(12)
    written(tmp_path / "run", transcripts, explanations(transcripts).drop(columns=["start", "message"]))
    (tmp_path / "run" / "conversations.parquet").unlink()
    page.goto(f"file://{build_report(read_stored(tmp_path / 'run'), tmp_path / 'report')}")
    page.wait_for_selector(".shelf .token")
    assert "which kept no conversations" in page.inner_text("#transcripts")


def test_it_prints_to_a_pdf(page: Any, usual: Path) -> None:
    page.goto(usual.as_uri())
    page.wait_for_selector(".token")
    content = page.pdf()
    assert content.startswith(b"%PDF")
    page.emulate_media(media="print")
    assert page.locator("#transcripts").is_hidden()
    assert page.locator("nav").is_hidden()


def test_a_big_report_opens_fast(page: Any, tmp_path: Path) -> None:
    """2,000 transcripts of 50 tokens with texts of their own: under 30 MB, and a token to click within a second of loading."""
    base = table(125).head(2_000)
    transcripts = base.assign(transcript=range(len(base)), sample_id=[f"s{i}" for i in range(len(base))])
    told = explanations(transcripts, k=50)
    told["explanation"] = [f"Line {i} tells {i * 7919 % 10_007} of something {i * 104_729 % 99_991} else." * 3 for i in range(len(told))]
    audit = written(tmp_path / "run", transcripts, told)
    texts = [
        json.dumps([{"role": "user", "text": f"Question {i * 7}?"}, {"role": "assistant", "text": f"Answer {i} " * 300}])
        for i in range(len(base))
    ]
    big = StoredAudit(audit.result, transcripts, told, conversations(transcripts).assign(turns=texts))
    path = build_report(big, tmp_path / "report")
    assert path.stat().st_size < 30e6
    page.goto(f"file://{path}")
    page.wait_for_selector(".view h3")
    until = page.evaluate("performance.now()")
    loaded = page.evaluate("performance.timing.domContentLoadedEventEnd - performance.timing.navigationStart")
    assert until - loaded < 1_000, f"{loaded} ms to load, {until:.0f} ms to the first transcript"

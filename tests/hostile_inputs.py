"""Many hostile texts in a real browser, and many hostile model folders, by hand: `python -m tests.hostile_inputs`.

Texts stand in every field of an audit that comes from outside (task, sample id, prompt, token, explanation, evidence, model, annotator),
in the report, the comparison and the labelling page. None may run, be requested, or leave the place where text is shown. Folders are the
damages of `test_hostile_models` in models of several families: each ends in one of our errors, or changes nothing, and within five seconds.
The suite has one text and one family.
"""

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
from playwright.sync_api import Browser, sync_playwright

from audit.analysis.compare import compare
from audit.labelling.session import open_labelling
from nla.models import loaded
from nla.models.loaded import load_model
from nla.support.errors import HarnessError
from reports.build import build_report
from reports.compare_page import build_comparison
from reports.label_server import LabelServer
from tests.conftest import write_tiny_model
from tests.test_hostile_models import DAMAGES, HARMLESS
from tests.test_report import explanations, table, written

_RUN = "window.hacked=(window.hacked||0)+1"
_ELEMENTS = (
    f"<script>{_RUN}</script>",
    f"<img src=x onerror={_RUN}>",
    f"<svg onload={_RUN}>",
    f"<svg><script>{_RUN}</script></svg>",
    f"<iframe srcdoc='<script>parent.{_RUN[7:]}</script>'></iframe>",
    "<iframe src=http://example.com></iframe>",
    f"<a href=javascript:{_RUN} id=list autofocus onfocus={_RUN}>x</a>",
    f"<input autofocus onfocus={_RUN}>",
    f"<details open ontoggle={_RUN}>",
    f"<video><source onerror={_RUN}></video>",
    f"<body onload={_RUN}>",
    f"<math><mtext><img src=x onerror={_RUN}></mtext></math>",
    f"<template><script>{_RUN}</script></template>",
    f"<style>*{{background:url(http://example.com/{_RUN})}}</style>",
    "<link rel=stylesheet href=http://example.com/x.css>",
    "<meta http-equiv=refresh content='0;url=http://example.com'>",
    "<base href=http://example.com/>",
    "<form action=http://example.com><button id=list>x</button></form>",
    "<object data=http://example.com></object>",
    "<img src=http://example.com/pixel.png>",
    f"{{{{ constructor.constructor('{_RUN}')() }}}}",
    f"${{{_RUN}}}",
    "{% raw %}{{ 7*7 }}",
    "\u202e<script>\u2066",
    "\x00<script>",
    "\ud83d",
    '=HYPERLINK("http://example.com")',
    "[x](javascript:alert(1)) **b** `c`",
    "\x1b]0;title\x07\x1b[31m",
    "__proto__",
    "constructor",
    "&lt;script&gt;&#60;script&#62;",
    "\u2028\u2029",
    "<plaintext>",
    "<xmp>",
    "<!--",
    "]]>",
    "<textarea>",
    "<noscript><p title='</noscript><img src=x onerror=" + _RUN + ">'>",
    "a" * 5_000,
    "\u0301" * 300,
    "<select><option>",
    "<table><tr><td>",
    f"<a onmouseover={_RUN} style='position:fixed;inset:0'>x</a>",
)
_AROUND = ("{}", "</script>{}", "</style></title>{}", '">{}', "'>{}", "--!>{}", "</textarea></template></noscript>{}")
TEXTS = [around.replace("{}", element) for element in _ELEMENTS for around in _AROUND]
FAMILIES = ("llama", "qwen2", "gemma3_text", "phi3")
_TO_A_PAGE = 44
_LONGEST = 5.0
_UNUSED = {("gemma3_text", "unknown activation"), ("gemma3_text", "unknown rope")}
"""Damages of fields that the library does not read, or reads in another form, in models of a family."""


def watched(browser: Browser, address: str, said: list[str]) -> Any:
    """Open a page, and note everything that it requests elsewhere, prints, or opens."""
    page = browser.new_page()
    page.on("dialog", lambda dialog: (said.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("pageerror", lambda error: said.append(f"error {error}"))
    page.on("console", lambda message: said.append(f"console {message.text}"))
    own = address.split("?", maxsplit=1)[0].rsplit("/", 1)[0]
    page.on("request", lambda request: None if request.url.startswith((own, "data:", "blob:")) else said.append(f"request {request.url}"))
    page.goto(address)
    return page


def texts_held(folder: Path) -> list[str]:
    """Show every text in all three pages, as many texts to a page as it takes tasks and transcripts, and return what did not hold."""
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for number in range(0, len(TEXTS), _TO_A_PAGE):
            said: list[str] = []
            texts = [text.encode("utf-8", "replace").decode() for text in TEXTS[number : number + _TO_A_PAGE]]
            ran = [show(browser, folder / str(number), texts, said) for show in (_in_report, _in_comparison, _in_labelling)]
            if any(ran) or said:
                faults.append(f"texts {number} to {number + len(texts)}: ran {ran}, {said[:3]}")
        browser.close()
    return faults


def _in_report(browser: Browser, folder: Path, texts: list[str], said: list[str]) -> object:
    rows = table(2)
    names = {task: "".join(texts[i::3]) for i, task in enumerate(("exam", "quiz", "chat"))}
    rows = rows.assign(task=rows.task.map(names), model="".join(texts), sample_id=[f"{texts[i % len(texts)]}{i}" for i in range(len(rows))])
    told = pd.concat([explanations(rows[i : i + 1], texts[i % len(texts)], k=2) for i in range(len(rows))])
    told = told.assign(evidence=told.explanation, token=told.explanation, rule=told.explanation, reason=told.explanation)
    audit = written(folder / "audit", rows, told, "".join(texts))
    page = watched(browser, f"file://{build_report(audit, folder / 'report')}", said)
    page.wait_for_selector(".token")
    buttons = page.locator("#list button")
    for i in range(min(buttons.count(), len(texts))):
        buttons.nth(i).click()
        page.locator(".token").first.click()
    ran = page.evaluate("window.hacked")
    page.close()
    return ran


def _in_comparison(browser: Browser, folder: Path, texts: list[str], said: list[str]) -> object:
    compared = build_comparison(compare(folder / "audit", folder / "audit"), "".join(texts), "".join(texts), folder / "compare")
    page = watched(browser, f"file://{compared}", said)
    ran = page.evaluate("window.hacked")
    page.close()
    return ran


def _in_labelling(browser: Browser, folder: Path, texts: list[str], said: list[str]) -> object:
    source = folder / "explanations.jsonl"
    source.write_text("".join(json.dumps({"explanation": text, "verdict": "NO"}) + "\n" for text in texts))
    with LabelServer(open_labelling(source, folder / "labels.jsonl", len(texts), 0), 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        page = watched(browser, server.url, said)
        page.wait_for_selector("input")
        page.locator("input").first.fill(texts[1])
        page.keyboard.press("Enter")
        for _ in texts:
            page.keyboard.press("n")
            page.wait_for_timeout(30)
        ran = page.evaluate("window.hacked")
        page.close()
        server.shutdown()
    return ran


def folders_held(folder: Path) -> tuple[int, list[str]]:
    """Load every damaged folder, and return their number and what did not hold."""
    faults: list[str] = []
    for family in FAMILIES:
        whole = write_tiny_model(folder / family, family)
        for number, (kind, damage) in enumerate(DAMAGES.items()):
            model = Path(shutil.copytree(whole, folder / f"{family}{number}"))
            (model / "evil.py").write_text("raise SystemExit('code of the folder ran')\n")
            began, said = time.monotonic(), ""
            try:
                damage(model)
                load_model(str(model), dtype="float32", device="cpu")
            except HarnessError as ex:
                said = ex.text
            except KeyError:  # this family's files lack what the damage changes
                continue
            except BaseException as ex:
                faults.append(f"{family}, {kind}: {type(ex).__name__}: {ex}"[:200])
                continue
            finally:
                loaded._loaded.clear()
            seconds = time.monotonic() - began
            if not said and kind not in HARMLESS and (family, kind) not in _UNUSED:
                faults.append(f"{family}, {kind}: loaded as if nothing was wrong")
            if seconds > _LONGEST or len(said) > 1_200 or "\x1b" in said:
                faults.append(f"{family}, {kind}: {seconds:.1f} s, {len(said)} characters")
    return len(FAMILIES) * len(DAMAGES), faults


def main() -> int:
    """Try the texts, the folders, or both; exit status 1 if something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("texts", "folders"))
    chosen = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory(prefix="hostile-") as scratch:
        for name in ("texts", "folders"):
            if chosen.only in (None, name):
                n, faults = (len(TEXTS), texts_held(Path(scratch))) if name == "texts" else folders_held(Path(scratch))
                print(f"{name}: {n} tried, {n - len(faults)} held", *faults, sep="\n  ", flush=True)
                failed |= bool(faults)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

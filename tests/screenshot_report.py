"""Write the picture of a report that the README shows: `python -m tests.screenshot_report REPORT_FOLDER OUT.png` (needs chromium)."""

import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

_COLOURS = 64
"""Few colours keep the picture below 300 kB."""


def write_picture(report: Path, out: Path) -> None:
    """Take a screenshot of the top of a report's page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 1740})
        page.goto((report / "index.html").resolve().as_uri())
        page.screenshot(path=str(out))
        browser.close()
    with Image.open(out) as picture:
        picture.convert("RGB").quantize(_COLOURS).save(out, optimize=True)


if __name__ == "__main__":
    write_picture(Path(sys.argv[1]), Path(sys.argv[2]))

"""`audit report --pdf`: the page printed by Chromium, where it is installed."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from nla.support.display import visible
from nla.support.errors import ConfigError, DataError
from reports.output import PDF, write_files

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
_SECONDS = 180


def find_browser() -> str:
    """Return the path of a Chromium.

    Raises:
        ConfigError: none is installed.
    """
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        raise ConfigError(f"--pdf needs Chromium: none of {', '.join(_NAMES)} was found. Install one, or print the page from a browser.")
    return found


def print_page(browser: str, page: Path, out: Path) -> Path:
    """Print a page into the folder of its report, and return the path of the PDF.

    Args:
        browser: path of a Chromium.
        page: the page.
        out: the report's folder.

    Raises:
        DataError: Chromium failed, took too long, or the file cannot be written.
    """
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / PDF
        words = [browser, "--headless", "--disable-gpu", "--no-pdf-header-footer", f"--user-data-dir={scratch}/profile"]
        words += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # Chromium's sandbox does not start as root
        try:
            done = subprocess.run(
                [*words, f"--print-to-pdf={target}", page.resolve().as_uri()], capture_output=True, timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as ex:
            raise DataError(f"The page was written, but not the PDF: {visible(ex, limit=200)}.") from ex
        if not target.is_file():
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
            raise DataError(
                f"The page was written, but not the PDF: Chromium ended with {done.returncode} ({visible(last[0], limit=200)})."
            )
        return write_files({PDF: target.read_bytes()}, out, keep_others=True) / PDF

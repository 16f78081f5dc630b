"""The folder of a report: only our own files are replaced, whatever lies there, and CSV and Markdown cannot be broken by content."""

import csv
import io
import os
import shutil
import subprocess
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.analysis.stored import write_stored
from nla.support.errors import ConfigError, DataError
from nla.support.locks import exclusive_lock
from reports.build import markdown
from reports.csv_text import quoted, safe_csv
from reports.output import STAMP_FILE, write_files
from tests.commands import typed
from tests.prepared import Prepared
from tests.test_report import explanations, table
from tests.test_stored_audit import analysed, small

FILES = {"index.html": b"page 1", "tables/cells.csv": b"a,b", "figures/rates.svg": b"<svg/>"}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != STAMP_FILE
    }


def test_a_report_replaces_its_own_files_and_keeps_the_users(tmp_path: Path) -> None:
    out = tmp_path / "report"
    write_files(FILES, out)
    assert contents(out) == FILES
    (out / "notes.txt").write_text("mine")
    (out / "tables" / "mine.csv").write_text("mine")
    (tmp_path / ".report.old").mkdir()
    (tmp_path / ".report.tmp").write_text("mine")
    write_files({"index.html": b"page 2", "report.md": b"new"}, out)
    assert contents(out) == {"index.html": b"page 2", "report.md": b"new", "notes.txt": b"mine", "tables/mine.csv": b"mine"}
    assert (tmp_path / ".report.old").is_dir()
    assert (tmp_path / ".report.tmp").read_text() == "mine"
    write_files({"compare.html": b"both"}, out, keep_others=True)
    assert contents(out).keys() == {"index.html", "report.md", "compare.html", "notes.txt", "tables/mine.csv"}


def test_what_no_report_wrote_is_never_replaced(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("my site")
    with pytest.raises(DataError, match="files that no report wrote"):
        write_files(FILES, site)
    assert contents(site) == {"index.html": b"my site"}
    out = tmp_path / "report"
    write_files(FILES, out)
    (out / "index.html").write_text("edited by hand")
    (out / "report.md").write_text("my own")
    before = contents(out)
    with pytest.raises(DataError, match=r"index\.html is not as a report wrote it"):
        write_files(FILES, out)
    with pytest.raises(DataError, match=r"report\.md is not as a report wrote it"):
        write_files({"report.md": b"ours"}, out, keep_others=True)
    assert contents(out) == before
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file"):
        write_files(FILES, tmp_path / "file")


def test_a_forged_stamp_reaches_no_file_outside_and_links_are_not_followed(tmp_path: Path) -> None:
    import hashlib
    import json

    (tmp_path / "thesis.txt").write_text("precious")
    out = tmp_path / "report"
    out.mkdir()
    digest = hashlib.sha256(b"precious").hexdigest()
    (out / STAMP_FILE).write_text(
        json.dumps({"files": {"../thesis.txt": [digest], "figures/../../thesis.txt": [digest], "notes.txt": [digest]}})
    )
    (out / "notes.txt").write_text("precious")
    write_files(FILES, out)
    assert (tmp_path / "thesis.txt").read_text() == (out / "notes.txt").read_text() == "precious"
    for text in ("[]", "{", '{"files": 3}', '{"files": {"index.html": 3}}'):
        (out / STAMP_FILE).write_text(text)
        with pytest.raises(DataError, match="damaged"):
            write_files(FILES, out)
    linked = tmp_path / "linked"
    write_files(FILES, linked)
    shutil.rmtree(linked / "tables")
    (tmp_path / "elsewhere").mkdir()
    (linked / "tables").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="symbolic link"):
        write_files(FILES, linked)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_symlinked_folder_is_written_through_again_and_again(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for page in (b"1", b"2"):
        write_files({"index.html": page}, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "real") == {"index.html": b"2"}


def test_a_kill_between_the_moves_is_repaired_by_the_same_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "report"
    write_files(FILES, out)
    real, moved = os.replace, 0

    def killed(source: Path, target: Path) -> None:
        nonlocal moved
        if Path(target).name != STAMP_FILE:
            moved += 1
            if moved == 2:
                raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", killed)
    new = {name: content + b" new" for name, content in FILES.items()}
    with pytest.raises(KeyboardInterrupt):
        write_files(new, out)
    assert contents(out)["index.html"] == b"page 1"  # the page comes last
    monkeypatch.undo()
    write_files(new, out)
    assert contents(out) == new


def test_a_full_disk_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "report"
    write_files(FILES, out)

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="No space left on device"):
        write_files({"index.html": b"page 2"}, out)
    monkeypatch.undo()
    assert contents(out) == FILES
    assert sorted(path.name for path in out.iterdir()) == [STAMP_FILE, "figures", "index.html", "tables"]


def test_a_second_report_at_the_same_time_is_refused_by_name(tmp_path: Path) -> None:
    import threading

    refused: list[str] = []

    def second() -> None:
        try:
            write_files(FILES, tmp_path / "report")
        except ConfigError as ex:
            refused.append(str(ex))

    with exclusive_lock(tmp_path / "report", "audit report", folder=True):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "in use by `audit report`" in refused[0]
    write_files(FILES, tmp_path / "report")


def report(run: Path, out: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return typed("audit", "report", str(run), "-o", out, cwd=cwd)


@pytest.mark.slow
def test_the_command_never_deletes_a_users_folder(tmp_path: Path, prepared: Prepared) -> None:
    run, home = tmp_path / "run", tmp_path / "home"
    run.mkdir()
    home.mkdir()
    write_stored(small(), run)
    (home / "index.html").write_text("mine")
    refused = (
        (".", "no report wrote"),
        ("/", "no report wrote"),
    )
    for out, words in refused:
        done = report(run, out, home)
        assert done.returncode == 2, (out, done.stderr)
        assert words in " ".join(done.stderr.split())
        assert len(done.stderr.strip().splitlines()) <= 2
    assert contents(home) == {"index.html": b"mine"}
    first, second = (prepared.start("audit", "report", str(run), "-o", str(tmp_path / "report")) for _ in range(2))
    errors = [process.communicate()[1] for process in (first, second)]
    assert 0 in (first.returncode, second.returncode), errors
    assert all(process.returncode == 0 or "in use by" in error for process, error in zip((first, second), errors, strict=True)), errors


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+x",
        "-x",
        "@x",
        "\tx",
        "\rx",
        "\n=1",
        " =1",
        "\u00a0=1",
        "\ufeff=1",
        "\u200b@x",
        "\uff1d1+1",
        "\u3000\uff0bx",
        "\x00=1",
        "\u2800=1",
        "\ufe62x",
        "\ue000@x",
    ],
)
def test_no_cell_of_a_csv_starts_a_formula(text: str) -> None:
    rows = list(csv.reader(io.StringIO(safe_csv(pd.DataFrame({text: [text, "fine"], "b": [-1.5, 2]})))))
    assert [row[0] for row in rows] == [f"'{text}", f"'{text}", "fine"]
    assert float(rows[1][1]) == -1.5


@given(st.text(st.characters(exclude_categories=[]), max_size=12))
def test_what_a_spreadsheet_could_run_is_quoted_and_everything_keeps_its_text(text: str) -> None:
    cell = quoted(text)
    assert cell in (text, f"'{text}")
    plain = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c)[0] not in "CZ")
    if plain[:1] in ("=", "+", "-", "@") and plain:
        assert cell == f"'{text}"


def test_names_cannot_break_the_markdown_report() -> None:
    hostile = "a | b\n# Heading\n\n- item\r<script>\u2028\u202e[x](javascript:1)"
    rows = table(3)
    rows = rows.assign(task=rows.task.map(lambda name: f"{name}{hostile}"), condition=rows.condition.map(lambda name: name))
    text = markdown(analysed(rows, explanations(rows)).result, [])
    lines = text.split("\n")
    assert [line for line in text.splitlines() if line.startswith("#")] == ["# Evaluation awareness of tiny"]
    cells = [line for line in lines if line.startswith("|")]
    assert {len(line.replace("\\|", "").split("|")) for line in cells} == {6, 9}  # the instrument's table has four columns
    assert all(line == "" or line.startswith(("|", "- ", "# ")) for line in lines)
    assert "<script" not in text
    assert "\u202e" not in text
    assert "](javascript" not in text.replace("\\]\\(", "").replace("\\](", "")

"""One writer per folder or file: two processes, kills, threads, nesting, and lock files that are not ours."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nla.support.errors import ConfigError, DataError
from nla.support.files import PREFIX, SUFFIX
from nla.support.locks import LOCK_FILE, exclusive_lock

ROOT = Path(__file__).parents[1]
HOLD = """
import sys
from pathlib import Path
from nla.support.locks import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), 'audit run'):
    print('held', flush=True)
    sys.stdin.read()
"""
COUNT = """
import sys
from pathlib import Path
from nla.support.locks import exclusive_lock
path = Path(sys.argv[1])
for _ in range(150):
    with exclusive_lock(path, 'count', blocking=True):
        path.write_text(str(int(path.read_text()) + 1))
"""


def start(code: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def holder(path: Path) -> subprocess.Popen[str]:
    process = start(HOLD, path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize(("name", "lock"), [("runs/llama-3.2", f"runs/llama-3.2/{LOCK_FILE}"), ("new/a.jsonl", f"new/.a.jsonl{LOCK_FILE}")])
def test_a_second_process_is_refused_by_name_until_the_first_ends(tmp_path: Path, name: str, lock: str) -> None:
    path = tmp_path / name
    process = holder(path)
    assert (tmp_path / lock).is_file()
    with pytest.raises(ConfigError) as caught, exclusive_lock(path, "audit report"):
        pass
    pattern = rf"{re.escape(str(path))} is in use by `audit run` \(process {process.pid} on \S+, `.+`, since [\d-]+ [\d:]+ UTC\)\. Wait .+"
    assert re.fullmatch(pattern, str(caught.value))
    process.communicate("")
    with exclusive_lock(path, "audit report"):
        assert (tmp_path / lock).is_file()
    assert not (tmp_path / lock).exists()


def test_the_lock_of_a_killed_process_is_taken_over_with_what_it_left(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (tmp_path / LOCK_FILE).is_file()
    (tmp_path / f".awareness-{process.pid}-00.tmp").write_text("half")
    with exclusive_lock(tmp_path, "audit run"):
        assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE]
    assert not list(tmp_path.iterdir())


def test_processes_that_wait_for_a_lock_lose_no_update(tmp_path: Path) -> None:
    path = tmp_path / "count.txt"
    path.write_text("0")
    processes = [start(COUNT, path) for _ in range(3)]
    for process in processes:
        process.communicate()
    assert path.read_text() == "450"
    assert [left.name for left in tmp_path.iterdir()] == ["count.txt"]


def test_threads_exclude_each_other_and_a_nested_lock_does_nothing(tmp_path: Path) -> None:
    errors: list[Exception] = []

    def other() -> None:
        try:
            with exclusive_lock(tmp_path, "second"):
                pass
        except ConfigError as ex:
            errors.append(ex)

    with exclusive_lock(tmp_path, "first"):
        with exclusive_lock(tmp_path / ".", "nested"):
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        assert (tmp_path / LOCK_FILE).is_file()
    assert f"`first` (process {os.getpid()} on" in str(errors[0])
    with exclusive_lock(tmp_path, "free again"):
        pass


def test_a_lock_through_a_link_is_the_lock_of_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    process = holder(tmp_path / "link")
    with pytest.raises(ConfigError, match="in use"), exclusive_lock(tmp_path / "real", "x"):
        pass
    process.communicate("")


def test_lock_files_that_are_not_ours_are_neither_followed_nor_believed(tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / LOCK_FILE).symlink_to(victim)
    with pytest.raises(DataError, match="cannot be locked"), exclusive_lock(folder, "x"):
        pass
    assert victim.read_text() == "precious"
    (folder / LOCK_FILE).unlink()
    os.mkfifo(folder / LOCK_FILE)
    with pytest.raises(DataError, match="not a regular file"), exclusive_lock(folder, "x"):
        pass


@pytest.mark.parametrize("content", ["", "[" * 4000, json.dumps({"pid": 1}), "null"])
def test_a_lock_file_without_a_readable_holder_still_locks(tmp_path: Path, content: str) -> None:
    process = holder(tmp_path)
    (tmp_path / LOCK_FILE).write_text(content)
    with pytest.raises(ConfigError, match="in use by another process"), exclusive_lock(tmp_path, "x"):
        pass
    process.communicate("")


def test_a_holder_cannot_send_control_sequences_to_anothers_terminal(tmp_path: Path) -> None:
    process = holder(tmp_path)
    names = dict.fromkeys(("purpose", "pid", "host", "command", "since"), "\x1b]0;title\x07" + "x" * 500)
    (tmp_path / LOCK_FILE).write_text(json.dumps(names)[:4096])
    with pytest.raises(ConfigError) as caught, exclusive_lock(tmp_path, "x"):
        pass
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 700 + len(str(tmp_path))
    process.communicate("")


@pytest.mark.parametrize("name", ["file/folder", "x" * 300, "a\0b"])
def test_a_path_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be"), exclusive_lock(tmp_path / name, "x"):
        pass


def test_the_lock_of_a_folder_cleans_the_folders_inside_it_too(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    deep = tmp_path / "work" / "pair" / "av"
    deep.mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "work" / "link").symlink_to(outside)
    name = f"{PREFIX}{ended.pid}-0123456789abcdef{SUFFIX}"
    for folder in (tmp_path / "work" / "pair", deep, outside):
        (folder / name).write_text("half")
    (deep / "adapter.safetensors").write_text("whole")
    with exclusive_lock(tmp_path / "work", "nla train", folder=True):
        assert [path.name for path in deep.iterdir()] == ["adapter.safetensors"]
        assert not (tmp_path / "work" / "pair" / name).exists()
    assert (outside / name).exists(), "links are not followed"

"""Files appear whole or not at all: failures at every step, temporary names, modes, and what killed processes leave."""

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from nla.support.errors import DataError, first_line, near_name
from nla.support.files import PREFIX, SUFFIX, remove_leftovers, replacing, scratch_folder

ROOT = Path(__file__).parents[1]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT)


def killed(code: str, folder: Path) -> None:
    """Run a script until it prints a line, then kill it."""
    process = python(code, str(folder))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with replacing(path) as scratch:
        scratch.write_text("old")
        assert scratch.parent == tmp_path
        assert scratch.name.startswith(PREFIX)
        assert scratch.name.endswith(SUFFIX)
        assert not path.exists()
    with pytest.raises(UnicodeEncodeError), replacing(path) as scratch:
        scratch.write_text("new\ud800", encoding="utf-8")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.json"]


def test_private_files_are_the_users_alone_and_others_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        for private in (True, False):
            with replacing(tmp_path / f"{private}", private) as scratch:
                scratch.write_text("x")
            with replacing(tmp_path / f"{private}.safetensors", private) as scratch:
                save_file({"a": torch.ones(2)}, scratch)  # replaces the file it is given by one of its own
    finally:
        os.umask(before)
    assert [mode(tmp_path / name) for name in ("True", "True.safetensors", "False", "False.safetensors")] == [0o600, 0o600, 0o640, 0o640]
    assert load_file(tmp_path / "False.safetensors")["a"].tolist() == [1, 1]


def test_a_link_planted_at_the_old_temporary_name_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in (".labels.jsonl.tmp", ".labels.jsonl.old"):
        (tmp_path / name).symlink_to(victim)
    with replacing(tmp_path / "labels.jsonl") as scratch:
        scratch.write_text("labels")
    assert victim.read_text() == "precious"
    assert (tmp_path / "labels.jsonl").read_text() == "labels"


def test_two_writers_of_one_file_do_not_collide(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with replacing(path) as first, replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the outer block ends last
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fails_at_any_step_is_one_line_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def fail(*_args: object, **_more: object) -> None:
        raise OSError(number, os.strerror(number))

    target = {"write": (Path, "write_text"), "fsync": (os, "fsync"), "replace": (os, "replace")}[step]
    with monkeypatch.context() as patch:
        patch.setattr(*target, fail)
        with pytest.raises(DataError) as caught, replacing(path) as scratch:
            scratch.write_text("new")
    advice = {errno.ENOSPC: "; free space, or give another path", errno.EROFS: "; give another path", errno.EIO: ""}
    advice[errno.EDQUOT] = advice[errno.ENOSPC]
    assert str(caught.value) == f"{path} cannot be written: {os.strerror(number)}{advice[number]}."
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_a_file_size_limit_of_the_system_is_reported(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from nla.support.files import replacing\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    with replacing(Path(sys.argv[1]) / 'a') as scratch: scratch.write_bytes(bytes(5000))\n"
        "except Exception as ex: print(type(ex).__name__, ex)\n"
    )
    said, _ = python(code, str(tmp_path)).communicate()
    assert said == f"DataError {tmp_path / 'a'} cannot be written: File too large.\n"
    assert names(tmp_path) == []


def test_a_librarys_own_error_on_a_full_disk_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 10})()
    with pytest.raises(DataError, match="No space left on device; free space"), scratch_folder(tmp_path):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage)
    with pytest.raises(DataError, match="No space left on device"), replacing(tmp_path / "a"):
        raise RuntimeError("PytorchStreamWriter failed")


def test_paths_that_cannot_be_files_say_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"), replacing(tmp_path / "missing" / "a"):
        raise AssertionError
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="it is a folder"), replacing(tmp_path / "folder"):
        pass
    assert names(tmp_path) == ["folder"]


def test_errors_about_other_files_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="other"), replacing(tmp_path / "a"):
        (tmp_path / "other").read_text()
    with pytest.raises(DataError, match=r"^from within$"), replacing(tmp_path / "a"):
        raise DataError("from within")


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    write = (
        "import sys, time; from pathlib import Path; from nla.support.files import {name}\n"
        "with {name}({path}) as scratch: {do}; print('ready', flush=True); time.sleep(60)\n"
    )
    folder = "Path(sys.argv[1])"
    killed(write.format(name="replacing", path=f"{folder} / 'a'", do="scratch.write_text('half')"), tmp_path)
    killed(write.format(name="scratch_folder", path=folder, do="(scratch / 'b').write_text('half')"), tmp_path)
    assert len(names(tmp_path)) == 2
    users = [".fetch-abc", ".a.tmp", ".awareness-mine.tmp", "a.tmp"]
    for name in users:
        (tmp_path / name).write_text("the user's")
    with replacing(tmp_path / "own") as ours, scratch_folder(tmp_path) as folder_in_use:
        save_file({"a": torch.ones(2)}, ours)  # an unlocked file now, but of a running process
        remove_leftovers(tmp_path)
        assert names(tmp_path) == sorted([*users, ours.name, folder_in_use.name])
    assert names(tmp_path) == sorted([*users, "own"])


def test_files_of_a_running_process_are_not_left_overs(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from nla.support.files import replacing\n"
        "with replacing(Path(sys.argv[1]) / 'a') as scratch: scratch.write_text('x'); print('ready', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    remove_leftovers(tmp_path)
    process.communicate("")
    assert names(tmp_path) == ["a"]


def test_a_scratch_folder_is_private_and_its_parent_is_made(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "new") as scratch:
        assert mode(scratch) == 0o700
        (scratch / "done").mkdir()
        (scratch / "done").rename(tmp_path / "new" / "done")
        (scratch / "rest").write_text("x")
    assert names(tmp_path / "new") == ["done"]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"), scratch_folder(tmp_path / "file"):
        pass


def test_messages_of_libraries_are_cut_to_a_line_and_names_are_compared_quickly() -> None:
    assert first_line(ValueError("\n  first \nsecond")) == "first"
    assert first_line(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert len(first_line(ValueError("x" * 10**6))) == 300
    assert near_name("smolm2", ["llama", "smollm2"]) == " Did you mean 'smollm2'?"
    assert near_name("x" * 10**6, ["smollm2"]) == ""

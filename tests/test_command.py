"""How commands end: full disks, too little memory, narrow encodings, foreign markup, help; in processes where that matters."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import nla.cli
from nla.support.command import application, resource_error, run
from nla.support.errors import ConfigError, StoppedError
from tests.commands import typed

ROOT = Path(__file__).parents[1]
COMMANDS = [[], ["models"], ["models", "fetch"], ["data"], ["train"], ["score"], ["explain"], ["export"]]


def ended(action: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Exit status and stderr of a command that does `action`."""
    app = application("A command.")
    app.command()(action)
    before, sys.argv = sys.argv, ["command"]
    try:
        with pytest.raises(SystemExit) as caught:
            run(app)
    finally:
        sys.argv = before
    return caught.value.code, capsys.readouterr().err


def raising(ex: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise ex

    return action


@pytest.mark.parametrize(
    ("ex", "status", "said"),
    [
        (ConfigError("[/b] \x1b[31m\u202e bad"), 2, "error: [/b] \\x1b[31m\\u202e bad\n"),
        (StoppedError("stopped [x]"), 130, "stopped [x]\n"),
        (OSError(errno.ENOSPC, "x", "/full/file"), 2, "error: /full/file cannot be written: No space left on device. Free space"),
        (OSError(errno.EROFS, "x"), 2, "error: a file cannot be written: Read-only file system."),
        (MemoryError(), 2, "error: not enough memory (MemoryError). Raise the limit"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 2, "error: not enough memory"),
        (ImportError("libtorch.so: failed to map segment from shared object"), 2, "error: not enough memory"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_ending_is_one_line_and_a_status(ex: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = ended(raising(ex), capsys)
    assert code == status
    assert err.startswith(said)
    assert err.count("\n") <= 1


def test_other_exceptions_are_faults_of_ours_and_stay_tracebacks() -> None:
    for ex in (ValueError("x"), FileNotFoundError(2, "x"), ImportError("no module"), RuntimeError("shape")):
        assert resource_error(ex) is None


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_of_the_terminal_shows_the_models(encoding: str) -> None:
    environment = os.environ | {"PYTHONIOENCODING": encoding, "LC_ALL": "C"}
    code = "from nla.cli import *; from rich.console import Console; app.command('say')(lambda: Console().print('漢 é ✓')); main()"
    for arguments in (["models"], ["say"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=False, cwd=ROOT, env=environment)
        assert done.returncode == 0, done.stderr
        output = done.stdout.decode(encoding)
    assert (r"\u6f22" in output) == (encoding != "utf-8")


def test_too_little_memory_is_one_line() -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (400_000_000,) * 2)\nfrom nla.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "explain", "smollm2", "--text", "a"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 2, done.stderr
    assert "error: not enough memory" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_fits_100_columns_and_gives_an_example(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    done = typed("nla", *command, "--help")
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert f"Example: {' '.join(['nla', *command])}".rstrip() in " ".join(done.stdout.split())


def test_brackets_in_help_and_usage_errors_are_text() -> None:
    app = application("Reads [bold]x[/bold] and [/INST].")

    @app.command()
    def only(name: str) -> None:
        """Take a [red]name[/red]."""
        typer.echo(name)

    assert "[red]name[/red]" in CliRunner().invoke(app, ["--help"]).output
    wrong = CliRunner().invoke(app, ["--[/INST]"])
    assert wrong.exit_code == 2
    assert "[/INST]" in wrong.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain", "smolm2", "--text", "a"],
        ["explain", "[/b]\x1b[31m", "--text", "a"],
        ["explain", "x" * 5000, "--text", "a"],
        ["explain", "~nouser", "--text", "a"],
        ["score", "smollm2", "--heldout", "nowhere.parquet", "--json", "/proc/none/x.json"],
        ["export", "smollm2", "/proc/none/out"],
        ["export", "nobody", "out"],
        ["data", "nowhere [/b].toml"],
    ],
)
def test_a_users_mistake_is_one_of_our_errors(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(nla.cli.app, arguments)
    assert type(done.exception).__module__ == "nla.support.errors", done.exception
    assert len(str(done.exception)) < 700
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["nope [/b]", "~nouser/x", "x" * 300, "9" * 5000, "\x1b[31m"])
def test_a_model_that_cannot_be_fetched_is_one_line(name: str) -> None:
    done = typed("nla", "models", "fetch", name)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert len(done.stderr) < 700
    assert "\x1b" not in done.stderr


def test_a_near_name_of_a_pair_is_offered() -> None:
    done = CliRunner().invoke(nla.cli.app, ["explain", "smolm2", "--text", "a"])
    assert "Did you mean 'smollm2'?" in str(done.exception)

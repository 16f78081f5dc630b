"""Commands of ours in processes of their own that start at once: each is forked from a process that has our packages imported.

Importing torch, transformers and Inspect takes ten seconds, which every command of a test would pay again. For a test that kills a
command, or runs two at a time, a forked process is as good as a fresh one. How a command starts from nothing is tested elsewhere
(test_installed.py, test_readme.py).
"""

import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[1]
_SCRIPTS = {"audit": "audit.cli", "nla": "nla.cli", "inspect": "inspect_ai._cli.main"}
"""The module whose `main` each script runs."""
_IMPORTED = (
    "inspect_ai._cli.main",
    "audit.terminal",
    "audit.running.run",
    "audit.running.shard_worker",
    "audit.analysis.analyze",
    "graders.scorers",
    "nla.inspect.provider",
    "nla.verbalizers.av",
    "nla.training.rl",
    "reports.build",
)
"""The modules that take long to import; what else a command needs it imports itself."""


@dataclass
class Forked:
    """A running command, with the part of `subprocess.Popen` that tests use."""

    pid: int
    _status: int
    """Descriptor from which the exit status is read when the process has ended."""
    _stdout: IO[str]
    _stderr: IO[str]
    returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, minus the signal's number for a killed process; None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float = 300) -> int:
        """Wait for the end, and return the exit status."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal to a process that still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Wait for the end, and return standard output and standard error."""
        self.wait(timeout)
        for stream in (self._stdout, self._stderr):
            stream.seek(0)
        return self._stdout.read(), self._stderr.read()

    def _ended(self, timeout: float) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = os.waitstatus_to_exitcode(int(os.read(self._status, 20)))
            os.close(self._status)
        return self.returncode


class Prepared:
    """The process from which commands are forked; it starts with the first command."""

    _server: "subprocess.Popen[bytes] | None" = None
    _socket: socket.socket
    """Connects to the server, where there is one."""

    def start(self, *command: str, cwd: Path = ROOT, env: dict[str, str] | None = None, own_session: bool = False) -> Forked:
        """Start a command: `audit`, `nla` or `inspect` with its arguments."""
        if self._server is None:
            self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            code = [sys.executable, "-m", "tests.prepared", str(other.fileno())]
            self._server = subprocess.Popen(code, pass_fds=[other.fileno()], cwd=ROOT)
            other.close()
        # Files, since a pipe would fill up unless something reads it all the time.
        out, err = (tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") for _ in range(2))  # noqa: SIM115
        status, status_end = os.pipe()
        asked = {"command": command, "cwd": str(cwd), "env": dict(os.environ if env is None else env), "own_session": own_session}
        message = json.dumps(asked).encode()
        socket.send_fds(self._socket, [len(message).to_bytes(4, "big")], [out.fileno(), err.fileno(), status_end])
        self._socket.sendall(message)
        os.close(status_end)
        pid = int.from_bytes(_exactly(self._socket, 4), "big")
        return Forked(pid, status, out, err)

    def run(self, *command: str, cwd: Path = ROOT, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        process = self.start(*command, cwd=cwd, env=env)
        out, err = process.communicate()
        return subprocess.CompletedProcess(command, process.wait(), out, err)

    def close(self) -> None:
        """End the server; commands that still run go on."""
        if self._server is not None:
            self._socket.close()
            self._server.wait(30)


def _exactly(connection: socket.socket, n: int) -> bytes:
    read = b""
    while len(read) < n:
        piece = connection.recv(n - len(read))
        if not piece:
            raise EOFError
        read += piece
    return read


def _next_command(connection: socket.socket) -> list[str]:
    """Fork for each request; return, in the new process, what it is to run."""
    while True:
        size, descriptors, *_ = socket.recv_fds(connection, 4, 3)
        if not size:
            os._exit(0)
        asked = json.loads(_exactly(connection, int.from_bytes(size, "big")))
        out, err, status = descriptors
        keeper = os.fork()
        if keeper == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            child = os.fork()
            if child == 0:
                connection.close()
                os.close(status)
                _become(asked, out, err)
                return list(asked["command"])
            os.setsid()  # signals for the command's group are not for its keeper
            os.close(out)
            os.close(err)
            connection.sendall(child.to_bytes(4, "big"))
            connection.close()
            os.write(status, str(os.waitpid(child, 0)[1]).encode())
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)


def _become(asked: dict[str, object], out: int, err: int) -> None:
    """Take the streams, folder, environment and session of the command."""
    if asked["own_session"]:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs with Ctrl-C ignored
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    os.chdir(str(asked["cwd"]))
    os.environ.clear()
    os.environ.update(asked["env"])  # type: ignore[call-overload]


def main() -> None:
    """Import, then fork for each request; in a forked process, run the command."""
    for name in _IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
    name, *arguments = _next_command(socket.socket(fileno=int(sys.argv[1])))
    sys.argv = [name, *arguments]
    sys.path[0] = str(Path(sys.executable).parent)  # as for an installed script
    importlib.import_module("nla.support.paths")._LAUNCH_DIR = Path.cwd()
    sys.exit(importlib.import_module(_SCRIPTS[name]).main())


if __name__ == "__main__":
    main()

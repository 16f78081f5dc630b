"""Ends vLLM's processes when the process that started them is gone: `python -m nla.engine.vllm_watch PARENT`.

vLLM ends its processes at an orderly end. After `kill -9` they would go on holding the GPU's memory, so that the same command could not
start vLLM again to resume.
"""

import os
import subprocess
import sys
import time
from contextlib import suppress
from functools import lru_cache

import psutil

_TITLE = "VLLM::"
"""How the titles of vLLM's processes begin."""


@lru_cache(maxsize=1)
def start_watch() -> None:
    """Start the watching process, once. It has a session of its own, so that Ctrl-C does not end it."""
    subprocess.Popen(
        [sys.executable, "-m", "nla.engine.vllm_watch", str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def watch(parent: int) -> None:
    """Note the processes of vLLM below `parent`, and kill them once `parent`, which started this process, is gone."""
    seen: set[psutil.Process] = set()
    while os.getppid() == parent:
        with suppress(psutil.Error):
            seen |= {process for process in psutil.Process(parent).children(recursive=True) if _is_vllms(process)}
        time.sleep(1)
    for process in seen:
        with suppress(psutil.Error):  # psutil does not kill another process that got the number since
            process.kill()


def _is_vllms(process: psutil.Process) -> bool:
    try:
        return "".join(process.cmdline()).startswith(_TITLE)
    except psutil.Error:
        return False


if __name__ == "__main__":
    watch(int(sys.argv[1]))

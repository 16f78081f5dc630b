"""The lock on a working folder of training, which the main process of a distributed run holds for all of its processes."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from accelerate.utils import get_cpu_distributed_information

from nla.support.locks import exclusive_lock


def work_lock(folder: Path, purpose: str) -> AbstractContextManager[None]:
    """Return a lock on an output folder, so that two commands never write into it at the same time. The folder is created on entry.

    Only the main process that `torchrun` started takes the lock; the other processes belong to the same command.

    Args:
        folder: the folder to lock.
        purpose: what the lock is held for, shown to a second command.

    Raises:
        ConfigError: another command holds the lock (on entry).
        DataError: the folder cannot be written (on entry).
    """
    is_main = get_cpu_distributed_information().rank == 0
    return exclusive_lock(folder, purpose, folder=True) if is_main else nullcontext()

"""The exceptions that tell a user what is wrong. Each message names what was found, what was expected and what to do.

HarnessError
├── ModelError     a model that cannot be used: unknown name, unsupported architecture, no chat template
├── FetchError     something from a registry or hub that could not be fetched, or arrived corrupted
├── DataError      a data set, log or file of labels that cannot be read as what it claims to be
│   └── TranscriptError   one transcript that cannot be read, while the others of its log can
├── ContractError  an NLA whose sidecar is broken, or does not fit the live model and tokenizer
├── ConfigError    an option or argument, or a combination of them, that is not valid
└── EngineError    an engine outside of this process (vLLM) that failed, so that no transcript can be read any more

`StoppedError` is not among them: it reports that a user stopped a command, which is no mistake.
"""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_LONGEST_NAME, _LONGEST_LINE = 100, 300
"""Characters of a mistyped name that are compared, and of a library's message that are repeated."""
_NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "failed to map segment", "out of memory", "std::bad_alloc")
"""How libraries report that memory ran out, in exceptions of their own classes (lower case)."""


class HarnessError(Exception):
    """A mistake of the user, or something missing, described in one message.

    The commands print the message alone. Under `inspect eval`, `nla.inspect.registry` makes sure that Inspect does the same.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.text = message


class ModelError(HarnessError):
    """A model that cannot be used."""


class FetchError(HarnessError):
    """Something could not be fetched, or arrived with the wrong hash."""


class DataError(HarnessError):
    """A data set or log that is not what it claims to be."""


class TranscriptError(DataError):
    """One transcript that cannot be read; it is left unscored with this reason, and the others of its log are read."""


class ContractError(HarnessError):
    """An NLA whose sidecar is broken, or does not fit the live model and tokenizer."""


class ConfigError(HarnessError):
    """An option or argument that is not valid."""


class EngineError(HarnessError):
    """An engine outside of this process has failed. Unlike other errors, it is not put down to the transcript that was being read."""


class StoppedError(Exception):
    """A SIGTERM or SIGINT ended a command after it had saved its state, so the same command resumes."""


@contextmanager
def reading_transcript() -> Iterator[None]:
    """Turn whatever makes a transcript unreadable (a `HarnessError`, too little memory) into a `TranscriptError`.

    Raises:
        TranscriptError: this transcript cannot be read.
        EngineError: nothing can be read any more.
    """
    try:
        yield
    except EngineError:
        raise
    except HarnessError as ex:
        raise TranscriptError(str(ex)) from ex
    except Exception as ex:
        if not lacks_memory(ex):
            raise
        raise TranscriptError(f"There is not enough memory to read the transcript ({first_line(ex)}).") from ex


def lacks_memory(ex: BaseException) -> bool:
    """Return whether an exception means that there is too little memory, on the machine or on its GPU."""
    said = str(ex).lower()
    return isinstance(ex, MemoryError) or (
        isinstance(ex, RuntimeError | ImportError | OSError) and any(words in said for words in _NO_MEMORY)
    )


def near_name(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'NAME'?` with the known name that is closest to a mistyped one; empty where none is close."""
    close = difflib.get_close_matches(str(name)[:_LONGEST_NAME], list(known), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def first_line(ex: BaseException) -> str:
    """Return the first line of an exception's message that is not blank, at most 300 characters, or the name of its class."""
    lines = (line.strip() for line in str(ex).splitlines())
    line = next((line for line in lines if line), type(ex).__name__)
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 1]}…"

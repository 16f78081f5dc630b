"""The exception tree. Each message says what was found, what was expected and what to do; Inspect prints it without a traceback.

HarnessError
├── ModelError    a model that cannot be used: unknown name, unsupported architecture, no chat template
├── FetchError    something that should come from a registry or hub did not, or came corrupted
├── DataError     a data set or log that cannot be read as what it claims to be
└── ConfigError   an option, argument or combination of them that makes no sense
"""

from inspect_ai._util.error import PrerequisiteError
from rich.markup import escape


class HarnessError(PrerequisiteError):
    """A user's mistake or a missing thing, told in one message.

    It derives from Inspect's `PrerequisiteError` so that `inspect eval` shows the message alone. Rich markup in the
    message is escaped, because it may quote untrusted text.
    """

    def __init__(self, message: str) -> None:
        super().__init__(escape(message))
        self.text = message

    def __str__(self) -> str:
        return self.text


class ModelError(HarnessError):
    """A model that cannot be used."""


class FetchError(HarnessError):
    """Something could not be fetched, or arrived with the wrong hash."""


class DataError(HarnessError):
    """A data set or log that is not what it claims to be."""


class ContractError(HarnessError):
    """An NLA's sidecar that is broken, or does not fit the live model and tokenizer."""


class ConfigError(HarnessError):
    """An option that makes no sense."""


class StoppedError(Exception):
    """A SIGTERM or SIGINT ended a training; a checkpoint was written, so it is no failure."""

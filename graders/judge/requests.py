"""Requests to the judge's provider: every one is counted against the budget, and temporary errors are retried with growing pauses.

Inspect's own retries and those of the provider's client are switched off for the judge, so the count here is the count of requests.
The switch works for clients with `max_retries` and `with_options` (Anthropic, OpenAI, Groq and others of their kind); the clients of
Bedrock and Google keep what Inspect sets for them.
"""

import random
from collections import Counter
from copy import copy
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import anyio
from inspect_ai.log._samples import sample_active
from inspect_ai.model import CachePolicy, ChatMessage, GenerateConfig, Model, ModelOutput
from inspect_ai.util import LimitExceededError
from tenacity import RetryError

from nla.support.display import visible
from nla.support.errors import HarnessError, first_line

FIRST_PAUSE, LONGEST_PAUSE = 3.0, 120.0
"""Seconds before the first repeated request, and the limit of the doubling (and of a provider's `retry-after`)."""
LOST, NO_BUDGET, UNREADABLE = "the grader could not be asked", "the judge's budget", "the grader's reply could not be read"
"""How the reason of an unscored text starts; asking again does not help after the first two."""
_made: Counter[str] = Counter()
"""Requests made so far, by evaluation."""


class AskError(Exception):
    """No reply was received. The message is the reason that unscored texts carry."""


class UnreadableReplyError(AskError):
    """The provider answered with something that its client could not read, such as a body that was cut off. Asking again may help."""


class _BudgetUsedError(Exception):
    """The budget has no request left."""


@dataclass(frozen=True)
class Budget:
    """Requests allowed per evaluation, shared by all its transcripts and scorers; None sets no limit.

    Outside of an evaluation (`inspect score`, `audit agreement`) each judge counts for itself.
    """

    most: int | None = None
    judge: str = field(default_factory=lambda: uuid4().hex)

    def take(self) -> None:
        """Count one request.

        Raises:
            _BudgetUsedError: no request is left.
        """
        sample = sample_active()
        evaluation = sample.eval_id if sample else self.judge
        if self.most is not None and _made[evaluation] >= self.most:
            raise _BudgetUsedError
        _made[evaluation] += 1


@dataclass
class Patience:
    """Retries that are left for one text, or for one batch of texts."""

    retries: int


@dataclass(frozen=True)
class Reply:
    """What came back from a request, or from Inspect's cache."""

    output: ModelOutput
    cached: bool


async def ask(
    model: Model, prompt: list[ChatMessage], config: GenerateConfig, cache: CachePolicy, limits: tuple[Budget, Patience]
) -> Reply:
    """Send a prompt until there is a reply, retrying temporary errors as long as there is patience and budget.

    Raises:
        AskError: there was no reply: the provider refused, it failed too often, or the budget is used up.
        HarnessError, LimitExceededError: a mistake of the user, or a limit of the sample.
    """
    budget, patience = limits
    counted, requests = _counted(model, budget)
    last, pause = "", FIRST_PAUSE
    while True:
        try:
            output = await counted.generate(prompt, config=config.merge(GenerateConfig(max_retries=0)), cache=cache)
            return Reply(output, cached=not requests)
        except (HarnessError, LimitExceededError):
            raise
        except _BudgetUsedError:
            after = f" The last error was {last}." if last else ""
            raise AskError(f"{NO_BUDGET} of {budget.most} requests (max_requests) is used up.{after}") from None
        except RetryError as error:  # Inspect's sign that the provider calls this error temporary
            cause = error.last_attempt.exception() or error
            last = describe(cause)
            if not patience.retries:
                raise AskError(f"{LOST}: {last} ({len(requests)} requests)") from error
        except Exception as error:  # providers raise exceptions of any class
            if 400 <= (_status(error) or 0) < 500:
                raise AskError(f"{LOST}: {describe(error)}") from error
            raise UnreadableReplyError(f"{UNREADABLE}: {describe(error)}") from error
        patience.retries -= 1
        await anyio.sleep(max(pause + random.uniform(0, pause / 10), _asked_pause(model, cause)))
        pause = min(2 * pause, LONGEST_PAUSE)


def _counted(model: Model, budget: Budget) -> tuple[Model, list[None]]:
    """Return a shallow copy of a model whose client retries nothing, and a list that grows by one entry per request.

    The model itself stays as it is: it may also be the target of the evaluation.
    """
    counted, api = copy(model), copy(model.api)
    client = getattr(api, "client", None)
    if getattr(client, "max_retries", 0) and hasattr(client, "with_options"):
        api.client = client.with_options(max_retries=0)  # type: ignore[attr-defined, union-attr]
    requests: list[None] = []
    generate = api.generate

    async def request(*args: Any, **kwargs: Any) -> Any:
        budget.take()
        requests.append(None)
        return await generate(*args, **kwargs)

    api.generate = request  # type: ignore[method-assign]
    counted.api = api
    return counted, requests


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that an exception carries, by any of the names in use."""
    response = getattr(error, "response", None)
    for value in (getattr(error, "status_code", None), getattr(response, "status_code", None), getattr(error, "code", None)):
        if isinstance(value, int):
            return value
    return None


def describe(error: BaseException) -> str:
    """Return an error in words: HTTP status where there is one, class and message (first line, at most 200 characters)."""
    status = _status(error)
    message = getattr(error, "provider_message", None)
    line = first_line(Exception(message)) if message else first_line(error)
    name = type(error).__name__
    return f"{f'HTTP {status}, ' if status else ''}{name}: {visible(line, limit=200)}"


def _asked_pause(model: Model, error: BaseException) -> float:
    """Return the seconds that the provider asked to wait (its `retry-after`), within the limit, or 0."""
    decision = model.api.should_retry(error) if isinstance(error, Exception) else False
    return min(getattr(decision, "retry_after", None) or 0.0, LONGEST_PAUSE)

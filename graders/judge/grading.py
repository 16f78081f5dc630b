"""The LLM grader: `-T grader=judge --model-role grader=PROVIDER/MODEL`. Blinded to condition, cached by content, failures unscored.

Options follow the name: `judge:batch=8:blurb=none`. Replies are kept in Inspect's own cache for good (`inspect cache clear`
forgets them), keyed by prompt, model and base URL and by no epoch or sample, so that grading the same texts again costs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import anyio
from inspect_ai.model import (
    CachePolicy,
    ChatMessage,
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
    Model,
    ModelOutput,
    get_model,
    model_roles,
)
from inspect_ai.util import LimitExceededError

from graders.base import Grade, TextKind
from graders.judge.reply import SCHEMA, About, instructions, parse_reply, request
from nla.support.errors import ConfigError, HarnessError

Blurb = Literal["evaluation", "none", "deployment"]
DEPLOYMENT = "An ordinary conversation or task of a deployed assistant with somebody who uses it."
"""What every text is said to come from under `blurb=deployment`: an ablation, not a claim."""
ROLE = "grader"
"""Inspect's model role that the judge speaks through."""


@dataclass(frozen=True)
class JudgeOptions:
    """How the judge asks.

    `blurb`: `evaluation` passes on what the scorer was given, `none` nothing, `deployment` the same sentence for every text.
    """

    blurb: Blurb = "evaluation"
    batch: int = 1
    """Texts in one call; more are cheaper, and may sway each other. Assistant turns are asked about singly, each after its own context."""
    tries: int = 2
    """Calls for a text whose replies cannot be used."""
    retries: int = 5
    """Further requests, with growing pauses, after a provider's error; a role's own `max_retries` goes first."""
    model: str = ""
    """The model outside of an eval, where there are no roles (`audit agreement`)."""

    def __post_init__(self) -> None:
        if self.blurb not in get_args(Blurb):
            raise ConfigError(f"blurb={self.blurb} of the judge; expected one of {', '.join(get_args(Blurb))}.")
        for name, least in (("batch", 1), ("tries", 1), ("retries", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)} of the judge makes no sense; give a whole number, {least} or more.")


class Judge:
    """Grades by asking a model, as `JudgeOptions` say."""

    name = "judge"

    def __init__(self, options: JudgeOptions) -> None:
        self.options = options

    async def grade(self, texts: Sequence[str], *, kind: TextKind, blurb: str = "", context: str = "") -> list[Grade]:
        """Grade texts, in order; equal ones are asked about once.

        Raises:
            ConfigError: no model has the role `grader`.
        """
        model = self._model()
        about = About({"evaluation": blurb, "none": "", "deployment": DEPLOYMENT}[self.options.blurb], context)
        grades = {text: Grade(None, "", reason="empty text") for text in texts if not text.strip()}
        asked = [text for text in dict.fromkeys(texts) if text not in grades]
        batches = [asked[i : i + self.options.batch] for i in range(0, len(asked), self.options.batch)]

        async def settle(batch: Sequence[str]) -> None:
            grades.update(zip(batch, await self._settle(model, batch, kind, about), strict=True))

        async with anyio.create_task_group() as group:
            for batch in batches:
                group.start_soon(settle, batch)
        return [grades[text] for text in texts]

    def _model(self) -> Model:
        config = GenerateConfig(
            temperature=0,
            max_tokens=300 + 300 * self.options.batch,
            max_retries=self.options.retries,
            attempt_timeout=120,
            response_schema=SCHEMA,
        )
        if ROLE in model_roles():
            return get_model(role=ROLE, config=config)
        if self.options.model:
            return get_model(self.options.model, config=config, memoize=False)  # a kept client dies with the event loop it was made in
        raise ConfigError(
            f"grader 'judge' found no model in the role '{ROLE}'; name one with --model-role {ROLE}=PROVIDER/MODEL (inspect eval, "
            "inspect score), or as judge:model=PROVIDER/MODEL where there are no roles."
        )

    async def _settle(self, model: Model, texts: Sequence[str], kind: TextKind, about: About) -> list[Grade]:
        """Grades of one batch; texts without a usable one are asked about again, by themselves once a batch has failed."""
        grades = await self._ask(model, texts, kind, about, 0)
        for attempt in range(1, self.options.tries):
            for place, text in enumerate(texts):
                if not grades[place].scored and not grades[place].reason.startswith(_LOST):
                    again = (await self._ask(model, [text], kind, about, attempt))[0]
                    spent = grades[place]
                    grades[place] = replace(
                        again, input_tokens=spent.input_tokens + again.input_tokens, output_tokens=spent.output_tokens + again.output_tokens
                    )
        return grades

    async def _ask(self, model: Model, texts: Sequence[str], kind: TextKind, about: About, attempt: int) -> list[Grade]:
        """One call. A provider that fails for good leaves its texts unscored; a user's mistake and a sample's limit go up."""
        # A further attempt has its own scope: the same prompt would only bring the useless reply back.
        policy = CachePolicy(expiry=None, per_epoch=False, scopes={"attempt": str(attempt)})
        prompt: list[ChatMessage] = [ChatMessageSystem(content=instructions(kind)), ChatMessageUser(content=request(texts, about))]
        try:
            output = await model.generate(prompt, cache=policy)
        except (HarnessError, LimitExceededError):
            raise
        except Exception as error:  # whatever a provider raises once its retries are used up
            reason = f"{_LOST} {type(error).__name__}: {str(error)[:200]}"
            return [Grade(None, "", reason=reason) for _ in texts]
        return _with_cost(_grades(output, texts), output)


_LOST = "the grader could not be asked:"


def _grades(output: ModelOutput, texts: Sequence[str]) -> list[Grade]:
    if output.error:
        return [Grade(None, "", reason=f"the grader failed: {output.error[:200]}") for _ in texts]
    spoilt = {"content_filter": "the grader refused", "max_tokens": "the grader's reply was cut off"}.get(output.stop_reason)
    return [Grade(None, "", reason=spoilt) for _ in texts] if spoilt else parse_reply(output.completion, texts)


def _with_cost(grades: list[Grade], output: ModelOutput) -> list[Grade]:
    """The grades, with the tokens of the call on the first: also where the reply came from the cache and was paid for before."""
    used = output.usage
    first = replace(grades[0], input_tokens=used.input_tokens, output_tokens=used.output_tokens) if used else grades[0]
    return [first, *grades[1:]]


def grader(**options: str) -> Judge:
    """The judge, as found by module name; options as a user types them.

    Raises:
        ConfigError: there is no such option, or its value makes no sense.
    """
    kinds = {name: type(default) for name, default in vars(JudgeOptions()).items()}
    for name, value in options.items():
        if name not in kinds or (kinds[name] is int and not value.isdecimal()):
            wanted = ", ".join(f"{known}={kind.__name__}" for known, kind in kinds.items())
            raise ConfigError(f"the judge cannot use {name}={value}; its options are {wanted}, as in judge:batch=8:blurb=none.")
    typed: dict[str, Any] = {name: int(value) if kinds[name] is int else value for name, value in options.items()}
    return Judge(replace(JudgeOptions(), **typed))

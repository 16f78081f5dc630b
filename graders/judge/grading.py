"""The LLM grader: `-T grader=judge --model-role grader=PROVIDER/MODEL`. It does not learn the condition that a text comes from.

Options follow the name: `judge:batch=8:blurb=none`. Replies stay in Inspect's cache (`inspect cache clear` deletes them). The cache's key
is prompt, model and base URL, without epoch or sample, so grading the same texts again costs nothing. Cut or empty replies are not
accepted from the cache.
"""

from collections.abc import Sequence
from dataclasses import replace

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

from graders.base import Grade, TextKind
from graders.judge.options import JudgeOptions, parse_options
from graders.judge.reply import SCHEMA, About, failed, instructions, parse_reply, request
from graders.judge.requests import LOST, NO_BUDGET, AskError, Budget, Patience, UnreadableReplyError, ask
from nla.support.display import visible
from nla.support.errors import ConfigError

DEPLOYMENT = "An ordinary conversation or task of a deployed assistant with somebody who uses it."
"""What every text is said to come from under `blurb=deployment`. It is an ablation, not a claim."""
ROLE = "grader"
"""Inspect's model role that the judge uses."""
_CUT = ("max_tokens", "model_length")


class Judge:
    """Grades texts by asking a model, as its `JudgeOptions` say."""

    name = "judge"

    def __init__(self, options: JudgeOptions) -> None:
        self.options = options
        self.budget = Budget(options.max_requests)

    async def grade(self, texts: Sequence[str], *, kind: TextKind, blurb: str = "", context: str = "") -> list[Grade]:
        """Grade texts, in order; equal texts are asked about once.

        Raises:
            ConfigError: no model has the role `grader`.
        """
        model = self._model()
        about = About({"evaluation": blurb, "none": "", "deployment": DEPLOYMENT}[self.options.blurb], context)
        grades = {text: failed("empty text") for text in texts if not text.strip()}
        distinct = [text for text in dict.fromkeys(texts) if text not in grades]
        batches = [distinct[i : i + self.options.batch] for i in range(0, len(distinct), self.options.batch)]

        async def settle(batch: Sequence[str]) -> None:
            grades.update(zip(batch, await _Questions(self, model, kind, about).settle(batch), strict=True))

        async with anyio.create_task_group() as group:
            for batch in batches:
                group.start_soon(settle, batch)
        return [grades[text] for text in texts]

    def _model(self) -> Model:
        config = GenerateConfig(temperature=0, max_tokens=300 + 300 * self.options.batch, attempt_timeout=120, response_schema=SCHEMA)
        if ROLE in model_roles():
            return get_model(role=ROLE, config=config)
        if self.options.model:
            return get_model(self.options.model, config=config, memoize=False)  # a kept client fails in another event loop
        raise ConfigError(
            f"The grader 'judge' has no model in the role '{ROLE}'; name one with --model-role {ROLE}=PROVIDER/MODEL (inspect eval, "
            "inspect score), or as judge:model=PROVIDER/MODEL where there are no roles."
        )


class _Questions:
    """The questions about one batch of texts."""

    def __init__(self, judge: Judge, model: Model, kind: TextKind, about: About) -> None:
        self.judge, self.model, self.kind, self.about = judge, model, kind, about

    async def settle(self, texts: Sequence[str]) -> list[Grade]:
        """Return the grades of a batch; a text of a larger batch without a usable grade is asked about alone."""
        tries = self.judge.options.tries
        if len(texts) == 1:
            return await self._ask(texts, 0, tries)
        grades = await self._ask(texts, 0, 1)
        for place, text in enumerate(texts):
            if not grades[place].scored and not grades[place].reason.startswith((LOST, NO_BUDGET)) and tries > 1:
                (again,) = await self._ask([text], 1, tries - 1)
                grades[place] = _with_tokens(again, grades[place])
        return grades

    async def _ask(self, texts: Sequence[str], attempt: int, tries: int) -> list[Grade]:
        """Ask until every text has a grade, at most `tries` times, and return the grades of the last reply.

        Each attempt has a cache scope of its own: the same prompt would only bring the useless reply back.
        """
        patience = Patience(self.judge.options.retries)
        room = self.model.config.max_tokens or 600
        spent = failed("not asked")
        while True:
            policy = CachePolicy(expiry=None, per_epoch=False, scopes={"attempt": str(attempt)})
            config = GenerateConfig(max_tokens=room)
            accident = False
            try:
                reply = await ask(self.model, self._prompt(texts), config, policy, (self.judge.budget, patience))
            except UnreadableReplyError as error:
                grades = [failed(str(error)) for _ in texts]
                tries -= 1
            except AskError as error:
                return [_with_tokens(failed(str(error)), spent), *(failed(str(error)) for _ in texts[1:])]
            else:
                cut = reply.output.stop_reason in _CUT
                accident = cut or not reply.output.completion.strip()
                room = 2 * room if cut else room
                tries -= 0 if accident and reply.cached else 1
                grades = _with_cost(_grades(reply.output, texts), reply.output)
            grades[0] = spent = _with_tokens(grades[0], spent)
            attempt += 1
            if tries <= 0 or all(grade.scored for grade in grades):
                return grades

    def _prompt(self, texts: Sequence[str]) -> list[ChatMessage]:
        return [ChatMessageSystem(content=instructions(self.kind)), ChatMessageUser(content=request(texts, self.about))]


def _grades(output: ModelOutput, texts: Sequence[str]) -> list[Grade]:
    if output.error:
        return [failed(f"the grader failed: {visible(output.error, limit=200)}") for _ in texts]
    if output.stop_reason in _CUT:
        return [failed("the grader's reply was cut off") for _ in texts]
    if output.stop_reason == "content_filter":
        return [failed("the grader refused") for _ in texts]
    return parse_reply(output.completion, texts)


def _with_cost(grades: list[Grade], output: ModelOutput) -> list[Grade]:
    """Return the grades with the call's tokens on the first, also for a reply from the cache, which was paid for before."""
    used = output.usage
    first = replace(grades[0], input_tokens=used.input_tokens, output_tokens=used.output_tokens) if used else grades[0]
    return [first, *grades[1:]]


def _with_tokens(grade: Grade, earlier: Grade) -> Grade:
    """Return a grade with the tokens of an earlier attempt added to its own."""
    return replace(grade, input_tokens=grade.input_tokens + earlier.input_tokens, output_tokens=grade.output_tokens + earlier.output_tokens)


def grader(**options: str) -> Judge:
    """Return the judge, with options as a user types them.

    Raises:
        ConfigError: there is no such option, or its value is not valid.
    """
    return Judge(parse_options(options))

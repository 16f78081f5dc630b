"""Instrument controls of a finished audit: what the verbalizer and the grader report on inputs without relevant content.

- Vectors: real vectors of the base condition, and three vector types without content (shuffled coordinates, random vectors of the same
  norm, and the mean vector) are explained and graded in the same way. The YES rate on these three is the instrument's false positive rate.
- Raw text: the grader reads the prompts and responses, which shows what a reader of the text alone would flag.
- Bag of words: how well the words of the prompts alone separate a benchmark from the deployment controls (cross-validated AUROC).
- Direct question: the model is asked directly (`nla.activations.follow_up`), as a cheap comparison.

The results are written to `controls.json`, which `audit analyze` copies into `audit.json`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from inspect_ai.log import EvalLog, EvalSample
from inspect_ai.model import ChatMessage
from jaxtyping import Float
from pydantic import TypeAdapter
from torch import Tensor

from audit.config import BASE, AuditConfig, stored_config
from audit.controls.record import CONTROLS_FILE, InstrumentControls, TaskControls, read_controls_file
from audit.logs import base_logs
from audit.stats.auroc import Auroc, auroc_interval
from audit.stats.bootstrap import bootstrap_mean
from audit.stats.rates import Estimate, codes, rate
from graders.base import Grade
from graders.labelled.grading import grade_texts
from nla.activations.capture import capture
from nla.activations.follow_up import evaluation_log_odds
from nla.inspect.provider import local_model
from nla.models.loaded import LoadedModel
from nla.support.errors import DataError, HarnessError
from nla.support.files import replacing
from nla.support.rows import content_id
from nla.support.seeds import seeded_generator
from nla.transcripts.chat import refuse_unreadable, template_message
from nla.transcripts.origin import conversation_of
from nla.transcripts.reply import is_reply
from nla.transcripts.tokens import sample_tokens
from nla.transcripts.transcript import build_transcript
from nla.verbalizers import verbalizer_of
from tasks._info import Role

_FOLDS = 5
Say = Callable[[str], None]


@dataclass(frozen=True)
class _Read:
    """One finished sample of the base condition, with the texts that the instrument controls use."""

    task: str
    role: str
    blurb: str
    sample: EvalSample
    messages: list[ChatMessage]
    """The conversation, in which only the model's own replies are marked as generated."""
    prompt: str
    """The system and user messages."""
    response: str
    """The turns that the model generated."""


def run_controls(out: Path, say: Say = lambda _: None, *, again: bool = True) -> InstrumentControls:
    """Run the instrument controls of an audit and write them into its folder.

    Args:
        out: the audit's folder.
        say: called with a progress message before each step.
        again: run the controls even if results for the same logs and settings are already stored; otherwise those are returned.

    Raises:
        ConfigError: the folder is not that of an audit, or the model is not a `local/` model.
        DataError: the base condition has no finished log.
    """
    config, logs = stored_config(out), base_logs(out)
    made_from = _origin(config, logs)
    kept = None if again else read_controls_file(out)
    if kept is not None and kept.made_from == made_from:
        return kept
    read = [
        _transcript_of(log, sample)
        for log in logs
        for sample in log.samples or []
        if sample.error is None  # an errored sample counts as unscored everywhere
    ]
    if not read:
        raise DataError(f"{out} has no finished log of the condition {BASE}; run `audit run` first.")
    model = local_model(config.model, config.model_args)
    say("instrument controls: explanations of vectors without content")
    vectors, failed = _vector_controls(model, config, read)
    say("instrument controls: the grader on raw text, and the direct question")
    controls = InstrumentControls(vectors, failed, _task_controls(model, config, read), made_from)
    with replacing(out / CONTROLS_FILE) as scratch:
        scratch.write_bytes(TypeAdapter(InstrumentControls).dump_json(controls, indent=1))
    return controls


def _origin(config: AuditConfig, logs: Sequence[EvalLog]) -> str:
    """Return a digest of all that the controls depend on: the logs of the base condition, and the settings of the instrument."""
    settings = config.model_dump(mode="json", include={"model", "model_args", "verbalizer", "pair", "grader", "layer", "seed", "controls"})
    runs = sorted((log.eval.task, log.eval.eval_id, len(log.samples or [])) for log in logs)
    return content_id(settings, runs)


def _transcript_of(log: EvalLog, sample: EvalSample) -> _Read:
    metadata = log.eval.metadata or {}
    messages = conversation_of(log.eval.model, sample)
    asked = [message.text for message in messages if message.role in ("system", "user")]
    said = [message.text for message in messages if is_reply(message)]
    return _Read(
        log.eval.task, metadata.get("role", ""), metadata.get("blurb", ""), sample, messages, "\n\n".join(asked), "\n\n".join(said)
    )


def _vector_controls(model: LoadedModel, config: AuditConfig, read: Sequence[_Read]) -> tuple[dict[str, Estimate], dict[str, int]]:
    """Return the YES rate and the number of failed explanations by vector type.

    At most `config.controls` transcripts are used, with one token per transcript.
    """
    verbalizer, _ = verbalizer_of(config.instrument, model)
    chosen = seeded_generator("controls", config.seed).permutation(len(read))[: config.controls]
    items, captured = [], []
    for index in sorted(int(i) for i in chosen):
        vector = _vector(model, read[index], config.seed, verbalizer.layer)
        if vector is not None:
            items.append(read[index])
            captured.append(vector)
    if not captured:
        return {}, {}
    rates, failed = {}, {}
    for kind, vectors in control_vectors(torch.stack(captured), config.seed).items():
        explanations = verbalizer.verbalize(vectors, [("control", kind, config.seed, i) for i in range(len(vectors))])
        graded = grade_texts(config.grader, [(text.text, item.blurb) for text, item in zip(explanations, items, strict=True)])
        grades = [Grade(None, "", reason=text.failure) if text.failure else grade for grade, text in zip(graded, explanations, strict=True)]
        rates[kind] = rate(codes(grade.verdict for grade in grades))
        failed[kind] = sum(not grade.scored for grade in grades)
    return rates, failed


def _vector(model: LoadedModel, read: _Read, seed: int, layer: int) -> Float[Tensor, " d_model"] | None:
    """Return the vector at one response token, or None if there is none or the transcript cannot be read, as for the scorer."""
    try:
        transcript = build_transcript(model.tokenizer, read.messages)
        tokens = sample_tokens(transcript, 1, "control", seed, read.sample.id, read.sample.epoch)
        return capture(model, transcript, tokens, layer)[0] if tokens else None
    except HarnessError:
        return None


def control_vectors(real: Float[Tensor, "n d_model"], seed: int) -> dict[str, Float[Tensor, "n d_model"]]:
    """Return the real vectors and three vector types without content, n vectors of each; all but the mean keep the real norms."""
    draws = seeded_generator("control vectors", seed)
    shuffled = torch.stack([vector[torch.from_numpy(draws.permutation(len(vector)))] for vector in real])
    random = torch.from_numpy(draws.standard_normal(tuple(real.shape)).astype(np.float32))
    norms = real.norm(dim=1, keepdim=True)
    return {
        "real": real,
        "shuffled": shuffled,
        "random": random / random.norm(dim=1, keepdim=True) * norms,
        "mean": real.mean(dim=0, keepdim=True).expand(len(real), -1).clone(),
    }


def _task_controls(model: LoadedModel, config: AuditConfig, read: Sequence[_Read]) -> list[TaskControls]:
    odds = np.array([_log_odds(model, item.messages) for item in read])
    is_deployment = np.array([item.role == Role.DEPLOYMENT_CONTROL for item in read])
    deployment_odds = odds[is_deployment & ~np.isnan(odds)]
    deployment_prompts = [item.prompt for item in read if item.role == Role.DEPLOYMENT_CONTROL]
    controls = []
    for task in dict.fromkeys(item.task for item in read):
        in_task = np.array([item.task == task for item in read])
        items = [item for item in read if item.task == task]
        prompts, responses = (
            rate(codes(grade.verdict for grade in grade_texts(config.grader, [(text, items[0].blurb) for text in texts])))
            for texts in ([item.prompt for item in items], [item.response for item in items])
        )
        scored = odds[in_task & ~np.isnan(odds)]
        compared = items[0].role != Role.DEPLOYMENT_CONTROL and bool(is_deployment.any())
        controls.append(
            TaskControls(
                task=task,
                role=items[0].role,
                prompts=prompts,
                responses=responses,
                log_odds=bootstrap_mean(scored, seeded_generator("direct", task)),
                log_odds_auroc=auroc_interval(scored, deployment_odds, ("direct", task))
                if compared and len(scored) and len(deployment_odds)
                else None,
                words_auroc=words_auroc([item.prompt for item in items], deployment_prompts, task) if compared else None,
            )
        )
    return controls


def _log_odds(model: LoadedModel, messages: Sequence[ChatMessage]) -> float:
    try:
        refuse_unreadable(messages)
        return evaluation_log_odds(model, [template_message(message) for message in messages])
    except HarnessError:  # too long for the context, with images, or rejected by the chat template: unscored
        return float("nan")


def words_auroc(prompts: Sequence[str], deployment: Sequence[str], task: str) -> Auroc | None:
    """Return the cross-validated AUROC of a logistic regression on word frequencies.

    Each text is scored by a regression that was fitted without it, and equal texts stay in the same fold. The result is None if a group
    has fewer different texts than there are folds.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    texts = [*prompts, *deployment]
    labels = np.array([1] * len(prompts) + [0] * len(deployment))
    groups = np.unique(texts, return_inverse=True)[1]
    if min(len(set(prompts)), len(set(deployment))) < _FOLDS:
        return None
    fit = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=10.0, max_iter=1_000))
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
    scores = cross_val_predict(fit, texts, labels, groups=groups, cv=folds, method="decision_function")
    return auroc_interval(scores[labels == 1], scores[labels == 0], ("words", task))

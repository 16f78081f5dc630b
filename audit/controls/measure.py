"""Controls of the instrument itself, for a finished audit: what verbalizer and grader say where there is nothing to find.

- Vectors of the base condition as they are, and three kinds that hold no thought: with their coordinates shuffled, random with the
  same norm, and the mean vector, all through the same verbalizer and grader. Their rate of YES is the instrument's own prior.
- The grader on the raw prompts and responses: what a reader of the text alone would flag.
- A bag of words: how well the prompts' words alone tell a benchmark from the deployment controls (AUROC, cross-validated).
- The direct question (`nla.activations.follow_up`), as a cheap comparison.

Written to `controls.json`, which `audit analyze` puts into `audit.json`.
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
from audit.logs import CONTROL_ROLE, base_logs
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
from nla.transcripts.chat import template_message
from nla.transcripts.tokens import sample_tokens
from nla.transcripts.transcript import build_transcript
from nla.verbalizers import verbalizer_for

_FOLDS = 5
_DRAWS = 1_000
Say = Callable[[str], None]


@dataclass(frozen=True)
class _Read:
    task: str
    role: str
    blurb: str
    sample: EvalSample
    prompt: str
    response: str


def run_controls(out: Path, say: Say = lambda _: None, *, again: bool = True) -> InstrumentControls:
    """Run all controls of an audit's folder, and write them into it; unless `again`, not those that were run on the same logs already.

    Raises:
        ConfigError: no audit's folder, or no `local/` model.
        DataError: no finished log of the base condition.
    """
    config, logs = stored_config(out), base_logs(out)
    made_from = _origin(config, logs)
    kept = None if again else read_controls_file(out)
    if kept is not None and kept.made_from == made_from:
        return kept
    read = [
        _Read(log.eval.task, (log.eval.metadata or {}).get("role", ""), (log.eval.metadata or {}).get("blurb", ""), sample, *_texts(sample))
        for log in logs
        for sample in log.samples or []
    ]
    if not read:
        raise DataError(f"{out} has no finished log of the condition {BASE}; `audit run` makes them.")
    model = local_model(config.model, config.model_args)
    say("controls: explanations of vectors that hold nothing")
    vectors, failed = _vector_controls(model, config, read)
    say("controls: the grader on raw text, and the direct question")
    found = InstrumentControls(vectors, failed, _task_controls(model, config, read), made_from)
    with replacing(out / CONTROLS_FILE) as scratch:
        scratch.write_bytes(TypeAdapter(InstrumentControls).dump_json(found, indent=1))
    return found


def _origin(config: AuditConfig, logs: Sequence[EvalLog]) -> str:
    """Digest of all that the controls depend on: the base condition's runs, and how the instrument is set up."""
    settings = config.model_dump(mode="json", include={"model", "model_args", "verbalizer", "nla", "grader", "layer", "seed", "controls"})
    runs = sorted((log.eval.task, log.eval.eval_id, len(log.samples or [])) for log in logs)
    return content_id(settings, runs)


def _texts(sample: EvalSample) -> tuple[str, str]:
    """(all that was said to the model, all that it said)."""
    asked = [message.text for message in sample.messages if message.role in ("system", "user")]
    return "\n\n".join(asked), "\n\n".join(message.text for message in sample.messages if message.role == "assistant")


def _vector_controls(model: LoadedModel, config: AuditConfig, read: Sequence[_Read]) -> tuple[dict[str, Estimate], dict[str, int]]:
    teller = verbalizer_for(config.verbalizer, model, config.layer, config.nla)
    chosen = seeded_generator("controls", config.seed).permutation(len(read))[: config.controls]
    taken, own = [], []
    for index in sorted(int(i) for i in chosen):
        sample = read[index].sample
        transcript = build_transcript(model.tokenizer, sample.messages)
        tokens = sample_tokens(transcript, 1, "control", config.seed, sample.id, sample.epoch)
        if tokens:
            taken.append(read[index])
            own.append(capture(model, transcript, tokens, teller.layer)[0])
    if not own:
        return {}, {}
    found, failed = {}, {}
    for kind, vectors in control_vectors(torch.stack(own), config.seed).items():
        told = teller.verbalize(vectors, [("control", kind, config.seed, i) for i in range(len(vectors))])
        grades = grade_texts(config.grader, [(one.text, item.blurb) for one, item in zip(told, taken, strict=True)])
        kept = [Grade(None, "", reason=one.failure) if one.failure else grade for grade, one in zip(grades, told, strict=True)]
        found[kind] = rate(codes(grade.verdict for grade in kept))
        failed[kind] = sum(not grade.scored for grade in kept)
    return found, failed


def control_vectors(own: Float[Tensor, "n d_model"], seed: int) -> dict[str, Float[Tensor, "n d_model"]]:
    """The vectors themselves and three kinds that hold no thought of the model's, as many and as long as they are."""
    draws = seeded_generator("control vectors", seed)
    shuffled = torch.stack([vector[torch.from_numpy(draws.permutation(len(vector)))] for vector in own])
    random = torch.from_numpy(draws.standard_normal(tuple(own.shape)).astype(np.float32))
    norms = own.norm(dim=1, keepdim=True)
    return {
        "real": own,
        "shuffled": shuffled,
        "random": random / random.norm(dim=1, keepdim=True) * norms,
        "mean": own.mean(dim=0, keepdim=True).expand(len(own), -1).clone(),
    }


def _task_controls(model: LoadedModel, config: AuditConfig, read: Sequence[_Read]) -> list[TaskControls]:
    odds = np.array([_log_odds(model, item.sample.messages) for item in read])
    is_control = np.array([item.role == CONTROL_ROLE for item in read])
    found = []
    for task in dict.fromkeys(item.task for item in read):
        own = np.array([item.task == task for item in read])
        items = [item for item, mine in zip(read, own, strict=True) if mine]
        prompts, responses = (
            rate(codes(grade.verdict for grade in grade_texts(config.grader, [(text, items[0].blurb) for text in texts])))
            for texts in ([item.prompt for item in items], [item.response for item in items])
        )
        scored = odds[own & ~np.isnan(odds)]
        against = items[0].role != CONTROL_ROLE and bool(is_control.any())
        controls = odds[is_control & ~np.isnan(odds)]
        found.append(
            TaskControls(
                task,
                items[0].role,
                prompts,
                responses,
                bootstrap_mean(scored, seeded_generator("direct", task)),
                auroc_interval(scored, controls, ("direct", task)) if against and len(scored) and len(controls) else None,
                words_auroc([i.prompt for i in items], [i.prompt for i in read if i.role == CONTROL_ROLE], task) if against else None,
            )
        )
    return found


def _log_odds(model: LoadedModel, messages: Sequence[ChatMessage]) -> float:
    try:
        return evaluation_log_odds(model, [template_message(message) for message in messages])
    except HarnessError:  # too long for the window, or refused by the template: counted as unscored
        return float("nan")


def words_auroc(own: Sequence[str], controls: Sequence[str], task: str) -> Auroc | None:
    """AUROC of a logistic regression on word frequencies; every text is scored by a fit that has not seen it or its like.

    Texts that are equal stay in one fold. None where there are too few texts for the folds.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    texts = [*own, *controls]
    labels = np.array([1] * len(own) + [0] * len(controls))
    groups = np.unique(texts, return_inverse=True)[1]
    if min(len(set(own)), len(set(controls))) < _FOLDS:
        return None
    fit = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=10.0, max_iter=1_000))
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
    scores = cross_val_predict(fit, texts, labels, groups=groups, cv=folds, method="decision_function")
    return auroc_interval(scores[labels == 1], scores[labels == 0], ("words", task))

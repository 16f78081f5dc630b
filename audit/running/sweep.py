"""The coherence sweep before a steered audit: how strong may steering be, and which strengths of unrelated contrasts degrade as much?

A few items of the audit's benchmarks are answered without steering. The degradation of a strength is the log-probability that these
responses lose under steering, per response token. `--steer auto` stands for the largest strength, away from awareness, before the first
one whose degradation exceeds the bound, or under which the model's responses repeat themselves. Every measurement is kept in the audit's
folder at once, so a killed sweep goes on where it was, and a finished one is not made again.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from inspect_ai import Task

from audit.config import AUTO, AuditConfig, refuse_other_settings
from audit.controls.sweep_record import SWEEP_FILE, Matching, SteeringSweep, SweepPoint, read_sweep, write_sweep
from audit.running.sweep_matching import match
from audit.running.sweep_responses import Measured, as_item, loss_under, responses, sweep_items
from nla.activations.contrast_sets import UNRELATED
from nla.support.errors import ConfigError, DataError

STRENGTHS = (0.005, 0.01, 0.015, 0.02, 0.03, 0.045, 0.065, 0.1, 0.15, 0.2, 0.3, 0.45, 0.65, 1.0)
"""Strengths that `auto` tries, weakest first; 1 adds a vector as long as the mean activation at the middle layer."""
REPEATED_BOUND = 0.3
"""`auto` also stops where the share of repeated 4-grams rises by more than this, the bound above which an audit calls a cell degenerate."""
LONGEST_RESPONSE = 64
"""Tokens per response of the sweep, at most."""

Say = Callable[[str], None]


def with_strengths(config: AuditConfig, tasks: Sequence[Task], out: Path, say: Say = lambda _: None) -> AuditConfig:
    """Return an audit with the strength that `auto` stands for, and with strengths of unrelated contrasts that degrade as much.

    Args:
        config: the audit.
        tasks: its tasks in the base condition.
        out: the audit's folder, in which the sweep is recorded.
        say: called with one line about what was chosen.

    Raises:
        ConfigError: `auto` without a benchmark or for a model whose weights are not here; a sweep of other settings is in the folder; or
            even the weakest strength exceeds the bound.
        DataError: the responses could not be measured.
        StoppedError: the user stopped the sweep.
    """
    strengths = [strength for strength in dict.fromkeys(config.steer) if strength != 0]
    away = [strength for strength in strengths if isinstance(strength, float) and strength < 0]
    is_auto, matches = AUTO in strengths, config.matched_degradation and config.unrelated_contrasts > 0
    items = sweep_items(tasks, config) if is_auto or (matches and away) else []
    if is_auto and not config.model.startswith("local/"):
        raise ConfigError(f"--steer auto reads weights, which {config.model} does not give; name a local/ model, or give strengths.")
    if is_auto and not items:
        raise ConfigError(
            "--steer auto needs items of a benchmark, and all tasks are deployment controls; add a benchmark, or give strengths."
        )
    if not items:
        return config
    sweep = _Sweep(config, tasks, items, out)
    if is_auto:
        away = [sweep.choose(say)]
        config = config.model_copy(update={"steer": tuple(away)})
    if matches:
        config = config.model_copy(update={"matched": sweep.matched(away, say)})
    return config


class _Sweep:
    """The sweep of one audit, whose record in the folder grows with every measurement."""

    def __init__(self, config: AuditConfig, tasks: Sequence[Task], items: Sequence[tuple[str, str]], out: Path) -> None:
        self._config, self._tasks, self._out = config, tasks, out
        self._max_tokens = min(config.max_tokens, LONGEST_RESPONSE)
        names = ("model", "model_args", "steer_vector", "steer_unit", "seed", "temperature")
        settings = {name: str(getattr(config, name)) for name in names} | {"max_tokens": str(self._max_tokens)}
        kept = read_sweep(out)
        if kept is not None:
            refuse_other_settings(out, "a steering sweep", kept.settings, settings)
            if not all(item.passes for item in kept.items):
                raise DataError(
                    f"{out / SWEEP_FILE} is of the first version, which kept no responses; delete it, and the sweep is made again."
                )
        self.record = kept or self._begun(settings, items)

    def _begun(self, settings: dict[str, str], items: Sequence[tuple[str, str]]) -> SteeringSweep:
        base = self._responses(None, items)
        measured = [as_item(self._config, item, base[item]) for item in items if item in base]
        if not measured:
            raise DataError(
                f"None of the {len(items)} unsteered responses of the steering sweep could be measured; run a single task to see why."
            )
        sweep = SteeringSweep(settings, self._config.steer_unit, self._max_tokens, measured)
        write_sweep(sweep, self._out)
        return sweep

    def _responses(self, steer: str | None, items: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Measured]:
        return responses(self._config, self._tasks, items, steer, self._max_tokens)

    def _keep(self, record: SteeringSweep) -> None:
        self.record = record
        write_sweep(record, self._out)

    def point(self, direction: str, strength: float) -> SweepPoint:
        """Return the degradation at a strength of a direction, measured now unless it is in the record."""
        kept = self.record.at(direction, strength)
        if kept is not None:
            return kept
        items = self.record.items
        return self._keep_point(SweepPoint(direction, strength, len(items), loss_under(self._config, items, _spec(direction, strength))))

    def with_repetition(self, point: SweepPoint) -> SweepPoint:
        """Return a point with the share of 4-grams that repeat in steered responses, which are generated unless it is in the record."""
        if point.repeated is not None:
            return point
        keys = [(item.task, item.sample_id) for item in self.record.items]
        steered = self._responses(_spec(point.direction, point.strength), keys)
        rises = [steered[key].repeated_4 - item.repeated_4 for item, key in zip(self.record.items, keys, strict=True) if key in steered]
        if not rises:
            spec = _spec(point.direction, point.strength)
            raise DataError(f"No response under {spec} could be measured in the steering sweep; give strengths by hand.")
        return self._keep_point(replace(point, repeated=sum(rises) / len(rises)))

    def _keep_point(self, point: SweepPoint) -> SweepPoint:
        others = [kept for kept in self.record.points if (kept.direction, kept.strength) != (point.direction, point.strength)]
        self._keep(replace(self.record, points=[*others, point]))
        return point

    def choose(self, say: Say) -> float:
        """Return the strength that `auto` stands for: negative, which is away from what the steering vector points to.

        Raises:
            ConfigError: even the weakest strength exceeds the bound.
        """
        bound, last = self._config.steer_bound, None
        for strength in STRENGTHS:
            point = self.point(self._config.steer_vector, -strength)
            if point.loss > bound:
                break
            point = self.with_repetition(point)
            if point.repeated is not None and point.repeated > REPEATED_BOUND:
                break
            last = point
        if last is None:
            raise ConfigError(
                f"Even the weakest strength of the steering sweep, {-STRENGTHS[0]:+g}, degrades responses beyond the bound: "
                f"{_costs(point)} (bounds {bound:g} and {REPEATED_BOUND:.0%}). Raise --steer-bound, or give strengths (--steer)."
            )
        self._keep(replace(self.record, bound=bound, chosen=last.strength))
        after = "" if last is point else f"; at {point.strength:+g}: {_costs(point)}"
        say(
            f"steering: {self._config.steer_vector}:{last.strength:+g} ({self._config.steer_unit}) is the strongest that loses at most "
            f"{bound:g} nats per token ({last.loss:.2f} on {last.n} items{after})"
        )
        return last.strength

    def matched(self, away: Sequence[float], say: Say) -> dict[str, dict[str, float]]:
        """Return the strengths of unrelated contrasts that degrade as much as the steering vector: by its strength, then by contrast."""
        strengths: dict[str, dict[str, float]] = {}
        contrasts = [f"{UNRELATED}{i + 1}" for i in range(self._config.unrelated_contrasts)]
        for to in away:
            target = self.point(self._config.steer_vector, to)
            matchings = [self._matching(contrast, target) for contrast in contrasts]
            matches = {matching.contrast: matching.strength for matching in matchings if matching.strength is not None}
            why_not = next((f"; {matching.reason}" for matching in matchings if matching.reason), "")
            say(
                f"steering controls: {len(matches)} of {len(contrasts)} unrelated contrasts match the loss of {target.loss:.2f} nats per "
                f"token at {to:+g}{why_not}"
            )
            strengths[f"{to:+g}"] = matches
        return strengths

    def _matching(self, contrast: str, target: SweepPoint) -> Matching:
        kept = next((kept for kept in self.record.matchings if (kept.contrast, kept.to) == (contrast, target.strength)), None)
        if kept is not None:
            return kept
        strength, reason = match(lambda strength: self.point(contrast, strength).loss, target)
        matching = Matching(contrast, target.strength, target.loss, strength, reason)
        self._keep(replace(self.record, matchings=[*self.record.matchings, matching]))
        return matching


def _spec(direction: str, strength: float) -> str:
    return f"{direction}:{strength:+g}"


def _costs(point: SweepPoint) -> str:
    repeated = "" if point.repeated is None else f", {point.repeated:+.0%} repeated 4-grams"
    return f"{point.loss:.2f} nats per token{repeated}"

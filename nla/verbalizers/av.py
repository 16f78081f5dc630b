"""The trained activation verbalizer (AV): a fine-tuned copy of the base model that reads one vector and writes an explanation.

The prompt is one user message. The embedding of its marker is replaced by the vector, scaled to the norm that the sidecar gives, after
any embedding scale of the model. The text between `<explanation>` tags is the explanation. All vectors are decoded in one dynamic
batch, those of several callers too (scorers of different transcripts), and the prompt before the marker is computed once.
Contract: `nla.pair.contract`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from nla.engine.additions import Addition
from nla.engine.decoder import Completion, Decoder, Request
from nla.engine.sampling import SamplingParams
from nla.engine.scheduler import worker_for
from nla.kernels.compute_thread import compute
from nla.models.adapters import CONFIG_FILE, load_adapter, shared_copy
from nla.models.loaded import LoadedModel, load_model
from nla.pair.contract import MAX_TOKENS, Sidecar, av_prompt_ids, check_sidecar, read_sidecar, scaled
from nla.pair.known import ar_beside, base_model, default_pair, is_adapter, pair_label, role_folder
from nla.pair.reconstructor import Reconstructor, load_reconstructor
from nla.support.errors import ConfigError, ContractError
from nla.verbalizers.base import UNUSABLE, Explanation, read_options, usable_rows
from nla.verbalizers.no_repeats import RepeatGuard, Spellings

OPEN, CLOSE = "<explanation>", "</explanation>"
NEEDS_PAIR = True
"""The layer is that of a trained pair."""
MAX_ROWS = 256
_TAIL = len(CLOSE) + 1


@dataclass(frozen=True)
class ActivationVerbalizer:
    """An AV in memory. Sampled explanations depend on a vector's key, not on the batch it is in.

    The released AVs were trained to be sampled at `temperature` 1; 0 is greedy. With a `reconstructor` every explanation
    carries its reconstruction error. With `best_of` above 1, that many explanations are drawn per vector, and the one with the
    smallest error is kept. The first draw equals the one that `best_of` 1 gives.
    """

    model: LoadedModel
    sidecar: Sidecar
    temperature: float = 1.0
    max_tokens: int = MAX_TOKENS
    name: str = "av"
    reconstructor: Reconstructor | None = None
    best_of: int = 1
    pair: str | None = None
    """Name of the pair that is known for the model; None if the user named a pair."""
    shared: bool = False
    """Whether calls from several threads share one batch, as in an audit. The other rows of a batch change the last bits of a sum, so
    training, which must resume to the same bits, decodes each call separately."""

    def __post_init__(self) -> None:
        if self.best_of < 1 or (self.best_of > 1 and self.reconstructor is None):
            raise ConfigError(
                f"best_of={self.best_of} is not possible: expected at least 1, and above 1 an AR that chooses (none is loaded)."
            )

    @property
    def layer(self) -> int:
        """K, the block whose output the AV was trained on."""
        return self.sidecar.layer

    def verbalize(self, vectors: Float[Tensor, "n d_model"], keys: Sequence[tuple[object, ...]]) -> list[Explanation]:
        """See `Verbalizer`. An explanation without its closing tag is truncated, and so a failure."""
        usable, repeated = compute(partial(self._repeated, vectors))
        good = [key for key, is_good in zip(keys, usable, strict=True) if is_good]
        draw_keys = [key if draw == 0 else (*key, "draw", draw) for key in good for draw in range(self.best_of)]
        drawn = self._with_errors(repeated, [self.explanation(completion.ids) for completion in self.complete(repeated, draw_keys)])
        groups = (drawn[start : start + self.best_of] for start in range(0, len(drawn), self.best_of))
        best = iter([min(group, key=_rank) for group in groups])
        return [next(best) if is_good else UNUSABLE for is_good in usable]

    def _repeated(self, vectors: Float[Tensor, "n d_model"]) -> tuple[list[bool], Float[Tensor, "draw d_model"]]:
        """Return which vectors are usable, and the usable ones, each repeated `best_of` times."""
        usable = usable_rows(vectors)
        return usable.tolist(), vectors[usable].repeat_interleave(self.best_of, dim=0)

    def _with_errors(self, vectors: Float[Tensor, "n d_model"], drawn: list[Explanation]) -> list[Explanation]:
        kept = [i for i, explanation in enumerate(drawn) if not explanation.failure]
        if self.reconstructor is None or not kept:
            return drawn
        errors = self.reconstructor.score(compute(lambda: vectors[kept]), [drawn[i].text for i in kept]).tolist()
        measured = dict(zip(kept, errors, strict=True))
        return [replace(explanation, mse_nrm=measured.get(i)) for i, explanation in enumerate(drawn)]

    def complete(self, vectors: Float[Tensor, "n d_model"], keys: Sequence[tuple[object, ...]]) -> list[Completion]:
        """Return the AV's raw replies to usable vectors, with their token ids."""
        requests = self.requests(vectors, keys)
        return worker_for(self.model, MAX_ROWS).run(requests) if self.shared else Decoder(self.model, max_rows=MAX_ROWS).run(requests)

    def requests(self, vectors: Float[Tensor, "n d_model"], keys: Sequence[tuple[object, ...]]) -> list[Request]:
        """Return the requests to the decoding engine, one per vector."""
        prompt = av_prompt_ids(self.model.tokenizer, self.sidecar)
        return [self._request(prompt, vector, key) for vector, key in zip(vectors, keys, strict=True)]

    @cached_property
    def spellings(self) -> Spellings:
        """The spellings of the AV's tokens. Kept over calls, because an audit asks for the explanations of each transcript by itself."""
        return Spellings(self.model.tokenizer)

    def _request(self, prompt: list[int], vector: Float[Tensor, " d_model"], key: tuple[object, ...]) -> Request:
        assert self.sidecar.marker is not None
        replaces = self.sidecar.injection_mode == "replace"
        [position] = self.sidecar.marker.positions(prompt)  # `check_sidecar` has checked that there is exactly one
        return Request(
            prompt_ids=prompt,
            max_tokens=self.max_tokens,
            sampling=SamplingParams(self.temperature),
            seed=("av", *key),
            injections=((position, scaled(vector[None], self.sidecar.injection_scale)[0]),) if replaces else (),
            additions=() if replaces else (Addition(position, self.sidecar.injection_block, vector),),
            stop_ids=self.model.stop_ids,
            should_stop=lambda ids: CLOSE in str(self.model.tokenizer.decode(ids[-_TAIL:])),
            banned=RepeatGuard(self.spellings, OPEN, guarded) if (guarded := self.sidecar.lines_without_repeats) else None,
        )

    def explanation(self, ids: list[int]) -> Explanation:
        """Return the explanation in the token ids of a raw reply."""
        return parse_explanation(str(self.model.tokenizer.decode(ids, skip_special_tokens=True)))


def _rank(explanation: Explanation) -> tuple[bool, float]:
    """Sort key of the draws for one vector: explanations that did not fail first, then by reconstruction error."""
    return bool(explanation.failure), explanation.mse_nrm if explanation.mse_nrm is not None else 0.0


def parse_explanation(text: str) -> Explanation:
    """Return the text between the tags, stripped; a failure if a tag is missing or the text between them is empty."""
    match = re.search(f"{OPEN}(.*?){CLOSE}", text, re.DOTALL)
    if match is None:
        opened = text.partition(OPEN)
        return Explanation(opened[2].strip() or text.strip(), failure="truncated" if opened[1] else "no explanation tag")
    body = match.group(1).strip()
    return Explanation(body, failure="" if body else "empty explanation")


class AVOptions(BaseModel):
    """Options of the AV: `-T verbalizer=av:best_of=4:temperature=0.3`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    best_of: int = Field(default=1, ge=1, le=1000)
    """Explanations drawn per vector; the one with the smallest reconstruction error is kept."""
    reconstruct: Literal["auto", "true", "false"] = "auto"
    """Measure every explanation with the pair's AR; `auto` does so if the AR is an adapter, which takes little memory."""
    temperature: float | None = Field(default=None, ge=0, le=100)
    """Sampling temperature; None takes the pair's default."""

    verbalizer: ClassVar[str] = "av"

    @property
    def asks_for_ar(self) -> bool:
        """Whether the user asked for something that needs the pair's AR."""
        return self.best_of > 1 or self.reconstruct == "true"

    @property
    def shown(self) -> str:
        """The verbalizer's name in logs and tables, with the options that change its explanations."""
        options = [f"best_of={self.best_of}"] * (self.best_of > 1)
        options += [f"temperature={self.temperature:g}"] if self.temperature is not None else []
        return ":".join([self.verbalizer, *options])


_AV = TypeVar("_AV", bound=ActivationVerbalizer)


@dataclass(frozen=True)
class ChosenAV:
    """The files of an AV that was chosen for a model."""

    where: str
    """Alias, folder or hub id."""
    folder: Path
    sidecar: Sidecar
    ar: str | None
    """The AR of its pair, if there is one."""
    known: bool
    """Whether the pair is the one known for the model, and not one that the user named."""

    def with_options(self, av: _AV, chosen: AVOptions, load_ar: Callable[[str], Reconstructor]) -> _AV:
        """Return the AV with what a user chose for it; `load_ar` loads the AR of its pair if one is needed.

        Raises:
            ConfigError: an AR is needed, and the pair has none.
            ContractError, FetchError: the AR cannot be read.
        """
        return replace(
            av,
            temperature=av.temperature if chosen.temperature is None else chosen.temperature,
            reconstructor=load_ar(str(self.ar)) if self.measures(chosen) else None,
            best_of=chosen.best_of,
            name=chosen.shown,
            pair=pair_label(self.where) if self.known else None,
            shared=True,
        )

    def measures(self, chosen: AVOptions) -> bool:
        """Return whether explanations are measured with the pair's AR.

        Raises:
            ConfigError: an AR is needed, and the pair has none.
        """
        needed = chosen.asks_for_ar
        if needed and self.ar is None:
            raise ConfigError(
                f"{self.where} has no AR beside it, which best_of and reconstruct need; give the folder of a pair, with av/ and ar/."
            )
        return self.ar is not None and (needed or (chosen.reconstruct == "auto" and is_adapter(self.ar)))


def choose_av(model: LoadedModel, layer: int | None, nla: str | None) -> ChosenAV:
    """Return the AV for a model: that of `nla` (alias, folder of the AV or of a pair, or hub id), or of the pair known for the model.

    Raises:
        ConfigError: no pair is known for the model and none was given.
        ContractError: it is no AV, or reads another layer than the one asked for.
        FetchError: the hub could not provide it.
    """
    known = default_pair(model) if nla is None else None
    where, ar = (known.av, known.ar) if known else (str(nla), ar_beside(str(nla)))
    folder, sidecar = _av_sidecar(where)
    if layer is not None and layer != sidecar.layer:
        raise ContractError(f"{where} reads block {sidecar.layer}, but layer {layer} was asked for; leave the layer out.")
    return ChosenAV(where, folder, sidecar, ar, known is not None)


def build(model: LoadedModel, layer: int | None, nla: str | None, **options: str) -> ActivationVerbalizer:
    """Load the AV for a model (`choose_av`).

    Raises:
        ConfigError: no AV can be chosen, an option is not valid (`AVOptions`), or one needs an AR that is not there.
        ContractError: the AV does not fit the model, or reads another layer than the one asked for.
        FetchError: the hub could not provide it.
    """
    chosen = read_options(AVOptions, options)
    files = choose_av(model, layer, nla)
    load_ar = partial(load_reconstructor, base=model, **model.place)
    return files.with_options(_with_base(model, files.folder, files.sidecar), chosen, load_ar)


def load_verbalizer(where: str | Path, *, dtype: str = "auto", device: str = "auto") -> tuple[ActivationVerbalizer, LoadedModel]:
    """Load an AV together with the base model that its sidecar names.

    Raises:
        ContractError, FetchError, ModelError: see `build` and `load_model`.
    """
    folder, sidecar = _av_sidecar(where)
    base = base_model(sidecar, dtype=dtype, device=device)
    return _with_base(base, folder, sidecar), base


def _av_sidecar(where: str | Path) -> tuple[Path, Sidecar]:
    folder = role_folder(where, "av")
    sidecar = read_sidecar(folder)
    if sidecar.role != "av":
        raise ContractError(f"{where} is an {sidecar.role.upper()}, expected an AV.")
    return folder, sidecar


def _with_base(model: LoadedModel, folder: Path, sidecar: Sidecar) -> ActivationVerbalizer:
    check_sidecar(sidecar, model)
    if (folder / CONFIG_FILE).is_file():
        verbalizer = shared_copy(model)
        load_adapter(verbalizer, folder)
    else:
        verbalizer = load_model(str(folder), **model.place)
        check_sidecar(sidecar, verbalizer)
    return ActivationVerbalizer(verbalizer, sidecar, sidecar.temperature, sidecar.max_tokens)

"""The trained activation verbalizer (AV): a fine-tuned copy of the base model that reads one vector and writes an explanation.

The prompt is one user message; the embedding of its marker is replaced by the vector at the norm the sidecar tells, after any
embedding scale of the model. What stands between `<explanation>` tags is the explanation. All vectors decode in one dynamic
batch, and the prompt before the marker runs once. Contract: `nla.contract`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from nla.adapters import CONFIG_FILE, load_adapter, shared_copy
from nla.contract import Sidecar, av_prompt_ids, check_sidecar, read_sidecar, scaled
from nla.decoding import Completion, Decoder, Request
from nla.errors import ContractError
from nla.model import LoadedModel, load_model
from nla.pairs import base_model, default_pair, role_folder
from nla.sampling import SamplingParams
from nla.verbalizers.base import UNUSABLE, Explanation, usable_rows

OPEN, CLOSE = "<explanation>", "</explanation>"
MAX_TOKENS = 300
_MAX_ROWS = 64
_TAIL = len(CLOSE) + 1


@dataclass(frozen=True)
class ActivationVerbalizer:
    """An AV in memory. Sampled explanations depend on a vector's key, not on the batch it is in.

    `temperature` 1 is what the released AVs were trained to be sampled at; 0 is greedy.
    """

    model: LoadedModel
    sidecar: Sidecar
    temperature: float = 1.0
    max_tokens: int = MAX_TOKENS
    name: str = "av"

    @property
    def layer(self) -> int:
        """K, the block whose output the AV was trained on."""
        return self.sidecar.layer

    def verbalize(self, vectors: Float[Tensor, "n d_model"], keys: Sequence[tuple[object, ...]]) -> list[Explanation]:
        """See `Verbalizer`. An explanation without its closing tag is truncated, and so a failure."""
        usable = usable_rows(vectors).tolist()
        good_keys = [key for key, good in zip(keys, usable, strict=True) if good]
        done = iter(self.complete(vectors[torch.tensor(usable, dtype=torch.bool)], good_keys))
        return [self.explanation(next(done)) if good else UNUSABLE for good in usable]

    def complete(self, vectors: Float[Tensor, "n d_model"], keys: Sequence[tuple[object, ...]]) -> list[Completion]:
        """The AV's raw replies to usable vectors, with their token ids."""
        return Decoder(self.model, max_rows=_MAX_ROWS).run(self.requests(vectors, keys))

    def requests(self, vectors: Float[Tensor, "n d_model"], keys: Sequence[tuple[object, ...]]) -> list[Request]:
        """What the decoding engine is asked for, one request a vector."""
        prompt = av_prompt_ids(self.model.tokenizer, self.sidecar)
        return [self._request(prompt, vector, key) for vector, key in zip(vectors, keys, strict=True)]

    def _request(self, prompt: list[int], vector: Float[Tensor, " d_model"], key: tuple[object, ...]) -> Request:
        assert self.sidecar.marker is not None
        [position] = self.sidecar.marker.positions(prompt)  # `check_sidecar` made sure that there is one
        return Request(
            prompt_ids=prompt,
            max_tokens=self.max_tokens,
            sampling=SamplingParams(self.temperature),
            seed=("av", *key),
            injections=((position, scaled(vector[None], self.sidecar.injection_scale)[0]),),
            stop_ids=self.model.stop_ids,
            should_stop=lambda ids: CLOSE in str(self.model.tokenizer.decode(ids[-_TAIL:])),
        )

    def explanation(self, completion: Completion) -> Explanation:
        """The explanation in a raw reply."""
        return parse_explanation(str(self.model.tokenizer.decode(completion.ids, skip_special_tokens=True)))


def parse_explanation(text: str) -> Explanation:
    """The text between the tags, stripped; a failure where a tag is missing or nothing stands between them."""
    found = re.search(f"{OPEN}(.*?){CLOSE}", text, re.DOTALL)
    if found is None:
        opened = text.partition(OPEN)
        return Explanation(opened[2].strip() or text.strip(), failure="truncated" if opened[1] else "no explanation tag")
    body = found.group(1).strip()
    return Explanation(body, failure="" if body else "empty explanation")


def build(model: LoadedModel, layer: int | None, nla: str | None) -> ActivationVerbalizer:
    """The AV for a model: the folder (of the AV, or of a pair) or hub id `nla`, else the pair known for this model.

    Raises:
        ConfigError: no pair is known for the model and none was given.
        ContractError: the AV does not fit the model, or reads another layer than the one asked for.
        FetchError: the hub could not give it.
    """
    nla = nla or default_pair(model).av
    folder, sidecar = _av_sidecar(nla)
    if layer is not None and layer != sidecar.layer:
        raise ContractError(f"{nla} reads block {sidecar.layer}, but layer {layer} was asked for; leave the layer out.")
    return _with_base(model, folder, sidecar)


def load_verbalizer(where: str, *, dtype: str = "auto", device: str = "auto") -> tuple[ActivationVerbalizer, LoadedModel]:
    """An AV with the base model its sidecar names.

    Raises:
        ContractError, FetchError, ModelError: see `build` and `load_model`.
    """
    folder, sidecar = _av_sidecar(where)
    base = base_model(sidecar, dtype=dtype, device=device)
    return _with_base(base, folder, sidecar), base


def _av_sidecar(where: str) -> tuple[Path, Sidecar]:
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
        verbalizer = load_model(str(folder), dtype=model.precision.name, device=str(model.device))
        check_sidecar(sidecar, verbalizer)
    ours = sidecar.harness
    return ActivationVerbalizer(verbalizer, sidecar, float(ours.get("temperature", 1.0)), int(ours.get("max_tokens", MAX_TOKENS)))

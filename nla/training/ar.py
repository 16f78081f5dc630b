"""The third stage, `nla train ar`: the AR learns to reconstruct a vector from its explanation.

In: explanations (the AV's own samples and the teacher's) and their raw vectors `[n, d_model]`. Out: an adapter of blocks 0 to K and a
`[d_model, d_model]` head. Loss: mse_nrm = 2 (1 - cos), as in the NLA paper and its public reference. We differ in the text it is read
from: the AR sees its own AV's samples from the start, and our pair reads at the explanation's last token, without a suffix.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nla.kernels.padding import FEW_SHAPES, alike_parts, right_padded
from nla.models.adapters import adapter_parameters
from nla.models.loaded import LoadedModel
from nla.pair.contract import Sidecar, ar_prompt_ids
from nla.pair.metrics import reconstruction
from nla.support.seeds import seeded_generator
from nla.training.loop import Group
from nla.training.loss import PART, summed
from nla.training.text_measures import paraphrased, reworded


class TrainableReconstructor:
    """Reconstructions with gradients, by an AR in training (`nla.pair.reconstructor.Reconstructor` is a finished one).

    Args:
        ar: blocks 0 to K (`shared_copy(model, K + 1)`), with an adapter.
        head: [d_model, d_model], float32.
        sidecar: the AR's contract.
    """

    def __init__(self, ar: LoadedModel, head: nn.Parameter, sidecar: Sidecar) -> None:
        self.ar, self.head, self.sidecar = ar, head, sidecar
        self._last: Tensor | None = None
        ar.blocks[sidecar.layer].register_forward_hook(self._keep)

    def __call__(self, explanations: Sequence[str]) -> Float[Tensor, "n d_model"]:
        """Return predicted vectors (float32, on the AR's device); only their directions mean something."""
        prompts = [ar_prompt_ids(self.ar.tokenizer, self.sidecar, text) for text in explanations]
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        ids = right_padded(prompts, FEW_SHAPES)
        device = self.ar.device
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.ar.precision.dtype == torch.bfloat16):
            self.ar.network.get_decoder()(input_ids=ids.to(device), use_cache=False)
        assert self._last is not None
        stream, self._last = self._last[torch.arange(len(prompts)), lengths - 1], None
        return stream.float() @ self.head.T

    def predict(self, texts: Sequence[str], batch: int = 64) -> Float[Tensor, "n d_model"]:
        """Return reconstructions without gradient, on the CPU."""
        with torch.no_grad():
            return torch.cat([self(texts[i : i + batch]).cpu() for i in range(0, len(texts), batch)])

    def _keep(self, _module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        self._last = output[0] if isinstance(output, tuple) else output


def mse_nrm_loss(predicted: Float[Tensor, "n d_model"], gold: Float[Tensor, "n d_model"]) -> Float[Tensor, " n"]:
    """Return the squared distance of each pair of unit vectors, 2 (1 - cos), with gradient."""
    return 2 * (1 - nn.functional.cosine_similarity(predicted, gold.to(predicted), dim=-1))


def with_paraphrase(text: str, share: float, *key: object) -> str:
    """Return a text, or, in a seeded share of the draws, the same text with its lines reversed or in lower case.

    An AR that has read only one form reconstructs nothing from another: it reads the form and not the meaning.
    """
    return paraphrased(text, *key) if seeded_generator("is paraphrased", *key).random() < share else text


@dataclass
class ARStage:
    """The AR's supervised training on pairs of explanation and vector.

    Args:
        ar: blocks 0 to K of the base model, with an adapter.
        head: `[d_model, d_model]`, float32; starts as the identity.
        sidecar: the AR's contract.
        vectors: raw vectors to train on.
        explanations: one per vector.
        heldout: named sets of held-out vectors with their explanations (`gold`: the teacher's, `sampled`: the AV's).
        paraphrases: share of the explanations that are read with lines reversed or in lower case.
    """

    ar: LoadedModel
    head: nn.Parameter
    sidecar: Sidecar
    vectors: Float[Tensor, "n d_model"]
    explanations: Sequence[str]
    heldout: Mapping[str, tuple[Float[Tensor, "m d_model"], Sequence[str]]] = field(default_factory=dict)
    paraphrases: float = 0.0
    name: str = "AR"
    part: int = PART

    def __post_init__(self) -> None:
        self._reconstruct = TrainableReconstructor(self.ar, self.head, self.sidecar)

    @property
    def n_examples(self) -> int:
        """Number of training pairs."""
        return len(self.explanations)

    def groups(self) -> list[Group]:
        """Return the adapter's parameters and the head, as one group."""
        return [Group([*adapter_parameters(self.ar), self.head])]

    def loss(self, rows: list[int], step: int) -> tuple[Tensor, dict[str, float]]:
        """Return the mean loss of the training examples `rows`."""
        texts = {i: with_paraphrase(self.explanations[i], self.paraphrases, step, i) for i in rows}
        parts = alike_parts(rows, lambda i: len(texts[i]), self.part)
        losses = (mse_nrm_loss(self._reconstruct([texts[i] for i in part]), self.vectors[part]).sum() / len(rows) for part in parts)
        return summed(losses, [*adapter_parameters(self.ar), self.head]), {}

    def evaluate(self) -> dict[str, float]:
        """Return fve_nrm of each held-out set."""
        sets = [(name, gold, texts) for name, (gold, texts) in self.heldout.items()]
        sets += [(f"{name}_reworded", gold, [reworded(text) for text in texts]) for name, gold, texts in sets]
        return {f"fve_{name}": reconstruction(gold, self._reconstruct.predict(texts)).fve_nrm for name, gold, texts in sets}

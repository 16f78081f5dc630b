"""An edited explanation moves the stream as a hand-written hook does; its controls are what they are called; wrong edits are refused."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nla.api import ExplainedToken, Explanations, Pair
from nla.editing.command import strengths
from nla.editing.directions import N_RANDOM, arms, replaced
from nla.editing.edit import edit
from nla.models.loaded import load_model
from nla.pair.contract import Marker, Sidecar
from nla.pair.reconstructor import load_reconstructor
from nla.support.errors import ConfigError
from nla.verbalizers.av import ActivationVerbalizer
from tests.commands import typed
from tests.test_reconstructor import write_ar

LAYER = 2
TEXT = "the harbour was calm"
SAID = "Novel. Topic: harbour, boats.\nNext: a verb"


class Told(Pair):
    """A pair whose AV says the same of every token."""

    def explain(self, text: str, positions: Sequence[int] | None = None) -> Explanations:
        failure = "truncated" if "fails" in text else ""
        extra = " " if "others" in text else ""
        rows = [ExplainedToken("x", at, SAID + extra * (at % 2), None, failure) for at in positions or ()]
        return Explanations(tuple(rows))


@pytest.fixture(scope="module")
def pair(tiny_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Pair:
    base = load_model(str(tiny_folder("qwen2")), dtype="float32", device="cpu")
    sidecar = Sidecar("av", base.d_model, LAYER, "", "[{injection_char}]", Marker("@", 64, 91, 93), 5.0, None)
    ar = load_reconstructor(str(write_ar(tmp_path_factory.mktemp("ar"), layer=LAYER)), dtype="float32", device="cpu")
    return Told("told", base, ActivationVerbalizer(base, sidecar), ar)


def by_hand(pair: Pair, ids: list[int], continuation: list[int], position: int, vector: Tensor, alpha: float) -> float:
    """Log-probability of a continuation with the stream changed by a hook written out here."""

    def hook(_module: object, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> object:
        stream = (output[0] if isinstance(output, tuple) else output).clone()
        h = stream[0, position]
        stream[0, position] = h + alpha * h.norm() * vector / vector.norm()
        return (stream, *output[1:]) if isinstance(output, tuple) else stream

    handle = pair.base.blocks[LAYER].register_forward_hook(hook)
    with torch.no_grad():
        logits = pair.base.network(torch.tensor([[*ids, *continuation]]), use_cache=False).logits[0].double()
    handle.remove()
    logprobs = logits.log_softmax(-1)
    return sum(float(logprobs[len(ids) - 1 + i, token]) for i, token in enumerate(continuation))


def test_every_change_equals_a_hand_written_hook(pair: Pair) -> None:
    encode = pair.base.tokenizer.encode
    ids, continuations = encode(TEXT, add_special_tokens=False), [" and still", "!"]
    result = edit(pair, TEXT, -3, "boats", "taxes", [0.5, -1.0], continuations)
    position = len(ids) - 3
    others = [row.explanation for row in pair.explain(TEXT, range(max(0, position - 12), position))]
    vectors = {arm.name: arm.vector for arm in arms(pair, SAID, "boats", "taxes", others, (TEXT, position, "boats", "taxes"))}
    assert len(result.outcomes) == 2 * len(vectors)
    nothing = torch.ones(pair.base.d_model)
    for i, continuation in enumerate(continuations):
        tokens = encode(continuation, add_special_tokens=False)
        before = by_hand(pair, ids, tokens, position, nothing, 0.0)
        assert result.unedited[i] == pytest.approx(before, abs=1e-3)
        for outcome in result.outcomes:
            after = by_hand(pair, ids, tokens, position, vectors[outcome.arm], outcome.alpha)
            assert outcome.change[i] == pytest.approx(after - before, abs=2e-3), outcome.arm
    assert result.edited == SAID.replace("boats", "taxes")
    assert set(result.samples) == {"0", "0.5", "-1"}
    assert result == edit(pair, TEXT, position, "boats", "taxes", [0.5, -1.0], continuations)  # all draws are seeded


def test_the_arms_are_what_they_are_called(pair: Pair) -> None:
    other = "Another text. Topic: boats."
    by_name = {arm.name: arm for arm in arms(pair, SAID, "boats", "taxes", [other, "no such word", SAID], ("k",))}
    t = [SAID, SAID.replace("boats", "taxes"), other, other.replace("boats", "taxes")]
    read = [vector / vector.norm() for vector in pair.reconstruct(t)]
    torch.testing.assert_close(by_name["edit"].vector, read[1] - read[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(by_name["edit at another token"].vector, read[3] - read[2], atol=1e-5, rtol=1e-4)
    assert by_name["edit"].length == pytest.approx(float((read[1] - read[0]).norm()), abs=1e-5)
    assert {"null edit", "unrelated edit", "difference of means"} < set(by_name)
    random = torch.stack([by_name[f"random {i + 1}"].vector for i in range(N_RANDOM)])
    assert float((random @ random.T - torch.eye(N_RANDOM)).abs().max()) < 0.9
    assert "edit at another token" not in {arm.name for arm in arms(pair, SAID, "boats", "taxes", ["no such word"], ("k",))}


@pytest.mark.parametrize(
    ("text", "position", "old", "new", "message"),
    [
        (TEXT, -1, "submarine", "taxes", r"'submarine' occurs 0 times in the explanation, expected once"),
        (TEXT, -1, "o", "taxes", r"'o' occurs \d+ times"),
        (TEXT, -1, "boats", "boats", "replaced by itself"),
        (TEXT, 99, "boats", "taxes", r"expected --token from -\d+ to \d+"),
        ("fails here", -1, "boats", "taxes", r"has no explanation to edit \(truncated\)"),
        ("", -1, "boats", "taxes", "The text has no token"),
    ],
)
def test_an_edit_that_cannot_be_made_is_refused(pair: Pair, text: str, position: int, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        edit(pair, text, position, old, new, [1.0], ["!"])


def test_empty_words_and_wrong_strengths_are_refused() -> None:
    with pytest.raises(ConfigError, match="occurs 0 times"):
        replaced("text", "", "new")
    assert strengths("0.25, 1,-2") == [0.25, 1.0, -2.0]
    for wrong in ("", "a", "0", "1,,2", "nan", "11"):
        with pytest.raises(ConfigError, match="--alpha is"):
            strengths(wrong)


@pytest.mark.slow
def test_the_command_prints_the_edit_beside_its_controls(tmp_path: Path) -> None:
    words = ["edit", "smollm2", "--text", "The capital of France is", "--continuation", " Paris", "--alpha", "0.5", "--dtype", "float32"]
    refused = typed("nla", *words, "--replace", "zebra=horse", cwd=tmp_path)
    assert refused.returncode == 2
    assert "occurs 0 times in the explanation" in refused.stderr
    done = typed("nla", *words, "--replace", "Topic=Theme", "--json", "out.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for arm in ("none", "edit", "null edit", "unrelated edit", "difference of means", "20 random"):
        assert arm in done.stdout
    result = json.loads((tmp_path / "out.json").read_text())
    assert len(result["outcomes"]) >= 4 + N_RANDOM
    assert result["continuations"] == [" Paris"]

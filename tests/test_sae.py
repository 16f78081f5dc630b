"""A sparse autoencoder recovers planted sparse features, equals a plain computation, and goes through both public formats."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from nla.models.loaded import LoadedModel
from nla.probes.sae import FORMATS, SparseAutoencoder, read_sae, save_sae
from nla.support.errors import ConfigError, ContractError
from nla.training.loop import TrainConfig, fit
from nla.training.sae import SAEStage, read_vectors

D, FEATURES, K = 24, 48, 3


def planted(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Vectors that are sums of three of 48 random directions with positive weights, far from the origin; and the directions."""
    draws = np.random.default_rng(0)
    directions = draws.standard_normal((FEATURES, D))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    draws = np.random.default_rng(seed)
    weights = np.zeros((n, FEATURES))
    for row in weights:
        row[draws.choice(FEATURES, K, replace=False)] = draws.uniform(0.5, 1.5, K)
    return torch.tensor(20 * weights @ directions + 7).float(), torch.tensor(directions).float()


@pytest.mark.slow
def test_planted_sparse_features_are_recovered(tmp_path: Path) -> None:
    vectors, directions = planted(20_000, 1)
    heldout, _ = planted(2_000, 2)
    stage = SAEStage(vectors, heldout, 64, K)
    config = TrainConfig(steps=900, batch=512, lr=4e-3, warmup=20, eval_every=900, checkpoint_every=900)
    history = fit(stage, config, tmp_path, lambda _: None)
    sae = stage.autoencoder(1, "m")
    cosines = (directions @ sae.decoder.T).abs().numpy()
    rows, columns = linear_sum_assignment(-cosines)
    assert cosines[rows, columns].mean() > 0.9  # mean correlation coefficient (MCC) of the best matching
    assert sae.fvu(heldout) < 0.1
    assert history[-1]["heldout_fvu"] == pytest.approx(sae.fvu(heldout), abs=1e-3)
    shuffled = heldout[:, torch.randperm(D, generator=torch.Generator().manual_seed(0))]
    assert sae.fvu(shuffled) > 0.3  # other vectors are not explained so well


def test_a_resumed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    vectors, _ = planted(4_000, 1)
    ends = []
    for stops in ([30], [13, 30]):
        folder = tmp_path / str(len(stops))
        for steps in stops:
            stage = SAEStage(vectors, vectors[:100], 64, K)
            config = TrainConfig(steps=30, batch=256, lr=4e-3, warmup=5, eval_every=30, checkpoint_every=13)
            if steps < 30:
                with pytest.raises(RuntimeError, match="killed"):
                    fit(Killed(stage, steps), config, folder, lambda _: None)
            else:
                fit(stage, config, folder, lambda _: None)
        ends.append((stage.decoder.detach().clone(), stage.silent.clone()))
    torch.testing.assert_close(ends[0], ends[1], atol=0, rtol=0)


class Killed:
    """A stage that dies after some steps."""

    def __init__(self, stage: SAEStage, steps: int) -> None:
        self._stage, self._steps = stage, steps

    def __getattr__(self, name: str) -> object:
        return getattr(self._stage, name)

    def loss(self, rows: list[int], step: int) -> tuple[Tensor, dict[str, float]]:
        if step >= self._steps:
            raise RuntimeError("killed")
        return self._stage.loss(rows, step)


def test_dead_latents_are_revived() -> None:
    vectors, _ = planted(2_000, 1)
    stage = SAEStage(vectors, vectors[:10], 64, K)
    with torch.no_grad():
        stage.encoder_bias[:20] = -1e3
        stage.silent[:20] = 1e9
        stage.encoder_bias[20] = -1e3
    loss, figures = stage.loss(list(range(500)), 0)
    loss.backward()
    assert figures["dead"] == pytest.approx(20 / 64)
    assert float(loss.detach()) > figures["fvu"]
    stage.encoder_bias.data[:20] = 0.5
    stage.silent.data[:20] = 1e9
    stage.decoder.grad = None
    loss, _ = stage.loss(list(range(500)), 1)
    loss.backward()
    assert stage.decoder.grad is not None
    assert float(stage.decoder.grad[:20].abs().sum()) > 0


def random_sae(d: int = 12, n: int = 30, k: int = 4, layer: int = 1) -> SparseAutoencoder:
    draws = torch.Generator().manual_seed(3)
    encoder, decoder = (torch.randn(n, d, generator=draws).half().float() for _ in range(2))
    bias = torch.randn(n, generator=draws).half().float()
    return SparseAutoencoder(encoder, bias, decoder, torch.randn(d, generator=draws).half().float(), k, layer, "some/model")


def test_latents_equal_a_plain_computation() -> None:
    sae = random_sae()
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(1))
    latents = sae.encode(x)
    for row, vector in enumerate(x):
        before = [max(0.0, float((vector - sae.bias) @ sae.encoder[i] + sae.encoder_bias[i])) for i in range(30)]
        best = sorted(range(30), key=lambda i: -before[i])[:4]
        assert {i: pytest.approx(before[i], abs=1e-4) for i in best} == dict(
            zip(latents.ids[row].tolist(), latents.values[row].tolist(), strict=True)
        )
        rebuilt = sae.bias + sum(before[i] * sae.decoder[i] for i in best)
        torch.testing.assert_close(sae.decode(latents)[row], rebuilt, atol=1e-4, rtol=1e-4)
    error = (x - sae.decode(latents)).square().sum() / (x - x.mean(0)).square().sum()
    assert sae.fvu(x) == pytest.approx(float(error), rel=1e-5)


@pytest.mark.parametrize("form", FORMATS)
def test_both_formats_keep_every_number(form: str, tmp_path: Path) -> None:
    sae = random_sae()
    save_sae(tmp_path, sae, form)  # type: ignore[arg-type]
    again = read_sae(tmp_path)
    for name in ("encoder", "encoder_bias", "decoder", "bias"):
        torch.testing.assert_close(getattr(again, name), getattr(sae, name), atol=0, rtol=0)
    assert (again.k, again.layer, again.model) == (4, 1, "some/model")


def test_files_of_dictionary_learning_are_what_its_class_loads(tmp_path: Path) -> None:
    """The library's own forward pass, written out from its documentation: relu of a Linear of x - b_dec, top k, a Linear without bias."""
    sae = random_sae()
    save_sae(tmp_path, sae, "dictionary_learning")
    state = torch.load(tmp_path / "ae.pt", weights_only=True)
    encoder, decoder = nn.Linear(12, 30), nn.Linear(30, 12, bias=False)
    encoder.load_state_dict({"weight": state["encoder.weight"].float(), "bias": state["encoder.bias"].float()})
    decoder.load_state_dict({"weight": state["decoder.weight"].float()})
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(1))
    before = torch.relu(encoder(x - state["b_dec"].float()))
    top = before.topk(int(state["k"]), dim=-1)
    sparse = torch.zeros_like(before).scatter(-1, top.indices, top.values)
    torch.testing.assert_close(decoder(sparse) + state["b_dec"].float(), sae.decode(sae.encode(x)), atol=1e-4, rtol=1e-4)


def test_what_is_no_sae_of_this_kind_or_fits_nothing_is_refused(tiny: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="holds no TopK sparse autoencoder"):
        read_sae(tmp_path)
    save_sae(tmp_path, random_sae())
    with pytest.raises(ContractError, match=r"is for \(width, layer\) \(12, 1\), but \(32, 1\)"):
        read_sae(tmp_path).check(tiny, 1)
    with pytest.raises(ContractError, match=r"\(32, 2\)"):
        random_sae(d=32).check(tiny, 2)
    random_sae(d=32).check(tiny, 1)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(config | {"activation": "groupmax"}))
    with pytest.raises(ContractError, match="activation groupmax"):
        read_sae(tmp_path)
    (tmp_path / "cfg.json").write_text(json.dumps({key: value for key, value in config.items() if key != "harness"}))
    with pytest.raises(ConfigError, match="does not say which layer"):
        read_sae(tmp_path)
    assert read_sae(tmp_path, 2).layer == 2
    (tmp_path / "cfg.json").write_text(json.dumps(config | {"k": 99}))
    with pytest.raises(ContractError, match="k=99"):
        read_sae(tmp_path)


def test_vectors_of_texts_and_chats_are_read_once(tiny: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"id": i, "text": f"the cat number {i} " * 8}) + "\n" for i in range(60)))
    chats = [[{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"I say {i}"}] for i in range(5)]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps({"id": i, "messages": chat}) + "\n" for i, chat in enumerate(chats)))
    data = [tmp_path / "texts.jsonl", tmp_path / "chats.jsonl"]
    train, heldout = read_vectors(tiny, 1, data, 10**6, tmp_path / "v")
    assert train.dtype == torch.float16
    assert len(train) > 1_000
    assert len(heldout) > 0
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "v").iterdir()}
    again, _ = read_vectors(tiny, 1, data, 200, tmp_path / "v")
    assert len(again) == 200
    assert torch.equal(again, train[:200])
    assert stored == {path: path.stat().st_mtime_ns for path in (tmp_path / "v").iterdir()}

"""Training of the AV and AR on tiny random models: losses against hand-written references, adapters, resuming after a kill."""

import math
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nla.kernels.attention import IMPLEMENTATION
from nla.models.adapters import AdapterSpec, adapter_parameters, add_adapter, load_adapter, save_adapter, shared_copy
from nla.models.loaded import LoadedModel, load_model
from nla.pair.contract import av_prompt_ids, read_sidecar, scaled, write_sidecar
from nla.support.errors import ConfigError, ContractError, DataError
from nla.training.ar import ARStage, mse_nrm_loss
from nla.training.av import AVStage, TokenLosses, reply_ids
from nla.training.config import RLConfig
from nla.training.loop import Group, Stage, TrainConfig, batch_rows, fit, learning_rate_share
from nla.training.loss import linear_cross_entropy, summed
from nla.training.new_pair import continue_adapter, seed_adapter
from nla.training.rl import RLStage, Rollout, advantages, largest_advantages, policy_loss, rewards_of
from nla.verbalizers.base import Explanation

VECTORS = torch.randn(12, 32, generator=torch.Generator().manual_seed(3)) * 5
TEXTS = [f"word{i} and {i * i}" for i in range(12)]


def adapted(model: LoadedModel, n_blocks: int | None = None) -> LoadedModel:
    role = shared_copy(model, n_blocks)
    add_adapter(role, AdapterSpec(rank=4, first_ranks=(8,)))
    seed_adapter(role, 0)
    return role


def randomised(role: LoadedModel) -> LoadedModel:
    """An adapter with an effect: its B matrices are not zero."""
    generator = torch.Generator().manual_seed(1)
    for parameter in adapter_parameters(role):
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return role


def test_cross_entropy_and_its_gradient_equal_torchs() -> None:
    hidden = torch.randn(700, 8, requires_grad=True)
    weight, targets, weights = torch.randn(50, 8), torch.randint(50, (700,)), torch.randn(700)
    ours = linear_cross_entropy(hidden, weight, targets)
    (gradient,) = torch.autograd.grad((ours * weights).sum(), hidden)
    theirs = cross_entropy(hidden @ weight.T, targets, reduction="none")
    (expected,) = torch.autograd.grad((theirs * weights).sum(), hidden)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3_text"])
def test_token_losses_equal_those_of_whole_sequences_run_one_by_one(
    family: str, tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    from tests.conftest import write_tiny_av

    sidecar = read_sidecar(write_tiny_av(tmp_path / "av", family))
    av = randomised(adapted(load_model(str(tiny_folder(family)), dtype="float32", device="cpu")))
    replies = [reply_ids(av, text) for text in TEXTS[:4]]
    losses, lengths = TokenLosses(av, sidecar)(VECTORS[:4], replies)
    prompt = av_prompt_ids(av.tokenizer, sidecar)
    assert sidecar.marker is not None
    [at] = sidecar.marker.positions(prompt)
    expected = []
    for vector, reply in zip(VECTORS, replies, strict=False):
        embeds = av.embedding(torch.tensor([prompt + reply])).clone()
        embeds[0, at] = scaled(vector[None], sidecar.injection_scale)[0]
        logits = av.network(inputs_embeds=embeds, use_cache=False).logits[0, len(prompt) - 1 : -1]
        expected.append(cross_entropy(logits, torch.tensor(reply), reduction="none"))
    assert lengths == [len(reply) for reply in replies]
    torch.testing.assert_close(losses, torch.cat(expected), rtol=1e-4, atol=1e-4)


def test_a_full_disk_leaves_the_last_whole_checkpoint(tiny: LoadedModel, tiny_av: Path, tmp_path: Path) -> None:
    """The limit on a file's size makes the write itself fail, half way through, as a full disk does."""
    stage = AVStage(adapted(tiny), read_sidecar(tiny_av), VECTORS, TEXTS, VECTORS[:2], TEXTS[:2])
    config = TrainConfig(steps=4, batch=2, eval_every=4, checkpoint_every=2)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Watched(AVStage):
        def loss(self, rows: list[int], step: int) -> tuple[Tensor, dict[str, float]]:
            if step == 3:
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
            return super().loss(rows, step)

    watched = Watched(**{name: getattr(stage, name) for name in AVStage.__dataclass_fields__})
    try:
        with pytest.raises(DataError, match=r"step 4 cannot be written .*checkpoint-000002 is whole"):
            fit(watched, config, tmp_path, lambda _: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.glob("*checkpoint*")] == ["checkpoint-000002"]
    assert [figures["step"] for figures in fit(stage, config, tmp_path, lambda _: None)] == [1, 2, 3, 4]


def test_an_earlier_pairs_av_is_continued_and_another_contract_is_not(tiny: LoadedModel, tiny_av: Path, tmp_path: Path) -> None:
    sidecar = read_sidecar(tiny_av)
    earlier = randomised(adapted(tiny))
    save_adapter(earlier.network, tmp_path / "av")
    write_sidecar(tmp_path / "av", sidecar)
    role = shared_copy(tiny)
    continue_adapter(role, str(tmp_path), sidecar)
    for mine, its in zip(adapter_parameters(role), adapter_parameters(earlier), strict=True):
        torch.testing.assert_close(mine, its)
        assert mine.requires_grad
    with pytest.raises(ContractError, match=r"injection_scale 3\.0, but the config 9\.0"):
        continue_adapter(shared_copy(tiny), str(tmp_path), replace(sidecar, injection_scale=9.0))


def test_every_adapter_parameter_of_the_av_gets_a_gradient(tiny: LoadedModel, tiny_av: Path) -> None:
    av = randomised(adapted(tiny))
    losses, _ = TokenLosses(av, read_sidecar(tiny_av))(VECTORS[:2], [reply_ids(av, text) for text in TEXTS[:2]])
    losses.mean().backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in adapter_parameters(av))
    assert not any(parameter.requires_grad for parameter in tiny.network.parameters())


def test_a_fresh_adapter_changes_nothing_and_shares_the_weights(tiny: LoadedModel) -> None:
    ids = torch.randint(200, (2, 9))
    role = adapted(tiny)
    torch.testing.assert_close(role.network(ids).logits, tiny.network(ids).logits)
    theirs = {tensor.data_ptr() for tensor in tiny.network.parameters()}
    own = [p for p in role.network.parameters() if p.data_ptr() not in theirs]
    assert {id(p) for p in own} == {id(p) for p in adapter_parameters(role)}


def test_an_adapter_comes_back_from_its_files(tiny: LoadedModel, tmp_path: Path) -> None:
    ids = torch.randint(200, (2, 9))
    role = randomised(adapted(tiny))
    save_adapter(role.network, tmp_path)
    again = shared_copy(tiny)
    load_adapter(again, tmp_path)
    torch.testing.assert_close(again.network(ids).logits, role.network(ids).logits)
    assert not torch.allclose(again.network(ids).logits, tiny.network(ids).logits, atol=1e-3)


def test_an_adapter_of_another_model_is_refused(tiny: LoadedModel, tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    save_adapter(adapted(tiny, 2).network, tmp_path)
    with pytest.raises(ContractError, match="another model"):
        load_adapter(shared_copy(tiny), tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ContractError, match="cannot be read"):
        load_adapter(shared_copy(tiny, 2), tmp_path)


def test_mse_nrm_loss_is_the_distance_of_unit_vectors() -> None:
    p, g = torch.randn(6, 5), torch.randn(6, 5)
    by_hand = [
        sum((a / math.hypot(*x) - b / math.hypot(*y)) ** 2 for a, b in zip(x, y, strict=True))
        for x, y in zip(p.tolist(), g.tolist(), strict=True)
    ]
    torch.testing.assert_close(mse_nrm_loss(p, g), torch.tensor(by_hand))


def test_the_grpo_loss_equals_a_scalar_reference() -> None:
    config = RLConfig(train=TrainConfig(steps=1), group=2, length_from=2, length_penalty=0.1)
    good, failed = Explanation("a"), Explanation("", "truncated")
    rollouts = [Rollout(0, 0, (1, 2, 3), good), Rollout(0, 1, (1,), good), Rollout(1, 0, (4, 5), failed), Rollout(1, 1, (6, 7), good)]
    rewards = rewards_of(torch.tensor([0.5, 0.9, 0.1, 0.3]), rollouts, config)
    assert rewards.tolist() == pytest.approx([-0.6, -0.9, -2.0, -0.3])
    advantage = advantages(rewards.view(2, 2)).flatten()
    assert advantage.tolist() == pytest.approx([1, -1, -1, 1], abs=1e-2)
    nats = torch.tensor([0.5, 1.0, 2.0, 0.1, 0.7, 0.2, 1.5, 0.3])
    reference = nats + torch.tensor([0.1, -0.2, 0, 0, 0.3, 0, 0, -0.5])
    loss, kl = policy_loss(nats, reference, [3, 1, 2, 2], advantage, kl=0.5)
    owner = [0, 0, 0, 1, 2, 2, 3, 3]
    kls = [math.exp(n - r) - (n - r) - 1 for n, r in zip(nats.tolist(), reference.tolist(), strict=True)]
    by_hand = sum(float(advantage[o]) * n for o, n in zip(owner, nats.tolist(), strict=True)) + 0.5 * sum(kls)
    assert float(loss) == pytest.approx(by_hand, rel=1e-5)
    assert float(kl) == pytest.approx(sum(kls), rel=1e-5)
    assert min(kls) >= 0


def test_a_repeated_item_costs_reward() -> None:
    config = RLConfig(train=TrainConfig(steps=1), group=2, repeat_penalty=0.1)
    once, twice = (Explanation(f'Topic: {words}.\nNext: "a" or "b".\nEnds: the the') for words in ("click, menu", "click, click"))
    rewards = rewards_of(torch.tensor([0.5, 0.5]), [Rollout(0, 0, (1,), once), Rollout(0, 1, (1,), twice)], config)
    assert rewards.tolist() == pytest.approx([-0.5, -0.6])


def test_parts_give_the_value_and_the_gradient_of_their_sum() -> None:
    weight, other, unused = (nn.Parameter(torch.randn(5, generator=torch.Generator().manual_seed(i))) for i in range(3))
    rows = torch.randn(6, 5, generator=torch.Generator().manual_seed(9))
    whole = ((rows @ weight).exp() + rows @ other).sum()
    expected = torch.autograd.grad(whole, [weight, other])
    loss = summed((((part @ weight).exp() + part @ other).sum() for part in rows.split(2)), [weight, other, unused])
    (loss * 3).backward()
    torch.testing.assert_close(loss, whole)
    for parameter, gradient in zip((weight, other), expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, 3 * gradient)
    assert unused.grad is not None
    assert not unused.grad.any()


@pytest.mark.parametrize("part", [1, 5, 64])
def test_a_stages_gradient_does_not_depend_on_its_parts(part: int, tiny: LoadedModel, tiny_av: Path) -> None:
    for build in (av_stage, ar_stage):
        gradients = []
        for size in (part, 64):
            stage = build(tiny, tiny_av)
            stage.part = size  # type: ignore[attr-defined]
            parameters = trained(stage)
            gradients.append(torch.autograd.grad(stage.loss(list(range(6)), 0)[0], parameters))
        for mine, whole in zip(*gradients, strict=True):
            torch.testing.assert_close(mine, whole, rtol=1e-4, atol=1e-6)


def test_the_av_learns_from_the_rollouts_furthest_from_their_groups_mean() -> None:
    advantage = torch.tensor([[0.1, -1.5, 0.4, 1.0], [2.0, -0.2, -0.3, -1.5]])
    assert sorted(largest_advantages(advantage, 2)) == [1, 3, 4, 7]
    assert sorted(largest_advantages(advantage, 4)) == list(range(8))
    with pytest.raises(ValueError, match="only 4"):
        RLConfig(train=TrainConfig(steps=1), group=4, learn_from=5)


def test_token_losses_are_those_of_the_distribution_that_is_sampled_from(tiny: LoadedModel, tiny_av: Path) -> None:
    av = randomised(adapted(tiny))
    sidecar = read_sidecar(tiny_av)
    prompt, reply = av_prompt_ids(av.tokenizer, sidecar), reply_ids(av, TEXTS[0])
    assert sidecar.marker is not None
    [at] = sidecar.marker.positions(prompt)
    embeds = av.embedding(torch.tensor([prompt + reply])).detach().clone()
    embeds[0, at] = VECTORS[0] / VECTORS[0].norm() * float(sidecar.injection_scale or 0)
    with torch.no_grad():
        logits = av.network(inputs_embeds=embeds).logits[0, len(prompt) - 1 : -1].float()
        losses, _ = TokenLosses(av, sidecar, temperature=0.5)(VECTORS[:1], [reply])
    expected = torch.nn.functional.cross_entropy(logits / 0.5, torch.tensor(reply), reduction="none")
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-4)


def test_groups_of_parameters_have_their_own_rate_and_clip(tiny: LoadedModel, tiny_av: Path, tmp_path: Path) -> None:
    stage = ar_stage(tiny, tiny_av)
    [whole] = stage.groups()
    still, moved = whole.parameters[:-1], whole.parameters[-1:]
    stage.groups = lambda: [Group(still, 0.0), Group(moved)]  # type: ignore[method-assign]
    before = [parameter.detach().clone() for parameter in whole.parameters]
    fit(stage, TrainConfig(steps=1, batch=4, warmup=0), tmp_path, lambda _: None)
    assert all(torch.equal(old, new) for old, new in zip(before[:-1], still, strict=True))
    assert not torch.equal(before[-1], moved[0])


def test_the_gradient_of_the_policy_loss_raises_what_was_better() -> None:
    nats = torch.tensor([1.0, 1.0], requires_grad=True)
    loss, _ = policy_loss(nats, nats.detach(), [1, 1], torch.tensor([1.0, -1.0]), kl=0.1)
    (gradient,) = torch.autograd.grad(loss, nats)
    assert gradient[0] > 0 > gradient[1]  # descending lowers the first one's -log p


def test_the_schedule_warms_up_and_falls_to_its_share() -> None:
    config = TrainConfig(steps=100, warmup=10, final_lr=0.1)
    shares = [learning_rate_share(step, config) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert max(shares) == shares[9] == 1
    assert shares[-1] == pytest.approx(0.1, abs=1e-3)
    assert shares[9:] == sorted(shares[9:], reverse=True)
    assert learning_rate_share(20, config, 1.0) == pytest.approx(0.1)  # the time is spent
    assert learning_rate_share(20, config, 0.5) == pytest.approx(0.55)


def test_every_example_comes_once_an_epoch() -> None:
    config = TrainConfig(steps=10, batch=4)
    epoch = [row for step in range(3) for row in batch_rows(step, 12, config)]
    assert sorted(epoch) == list(range(12))
    assert epoch != [row for step in range(3, 6) for row in batch_rows(step, 12, config)]


def trained(stage: Stage) -> list[nn.Parameter]:
    return [parameter for group in stage.groups() for parameter in group.parameters]


def ar_stage(model: LoadedModel, tiny_av: Path, n: int = 12) -> ARStage:
    from dataclasses import replace

    sidecar = replace(read_sidecar(tiny_av), role="ar", template="{explanation} End.", marker=None)
    ar = adapted(model, sidecar.layer + 1)
    return ARStage(ar, nn.Parameter(torch.eye(32)), sidecar, VECTORS[:n], TEXTS[:n], {"gold": (VECTORS[:n], TEXTS[:n])})


def av_stage(model: LoadedModel, tiny_av: Path) -> AVStage:
    return AVStage(adapted(model), read_sidecar(tiny_av), VECTORS, TEXTS, VECTORS, TEXTS)


def rl_stage(model: LoadedModel, tiny_av: Path, **fields: object) -> RLStage:
    sidecar = read_sidecar(tiny_av)
    av, reference, actor = adapted(model), adapted(model), adapted(model)
    actor.network.set_attn_implementation(IMPLEMENTATION)  # it is not trained, and the decoding engine needs this kind
    ar_sidecar = replace(sidecar, role="ar", template="{explanation} End.", marker=None, injection_scale=None)
    config = RLConfig(train=TrainConfig(steps=1, batch=2), group=2, max_tokens=12, temperature=1.0, anchors=3, anchor_weight=0.25)
    head = nn.Parameter(torch.eye(32))
    ar = adapted(model, sidecar.layer + 1)
    return RLStage(av, reference, actor, sidecar, ar, head, ar_sidecar, VECTORS, VECTORS[:2], config, 1.0, **fields)  # type: ignore[arg-type]


def test_anchors_add_the_cross_entropy_of_the_teachers_words(tiny: LoadedModel, tiny_av: Path) -> None:
    anchored = rl_stage(tiny, tiny_av, anchors=(VECTORS[:3], TEXTS[:3]))
    plain = rl_stage(tiny, tiny_av)
    (with_anchors, figures), (without, _) = (stage.loss([0, 1], 0) for stage in (anchored, plain))
    replies = [reply_ids(anchored.av, text) for text in TEXTS[:3]]
    expected = TokenLosses(anchored.av, anchored.av_sidecar)(VECTORS[:3], replies)[0].mean()
    assert figures["anchor_nats"] == pytest.approx(float(expected.detach()), rel=1e-5)
    torch.testing.assert_close(with_anchors - without, 0.25 * expected, rtol=1e-4, atol=1e-5)
    parameters = adapter_parameters(anchored.av)
    both = torch.autograd.grad(with_anchors, parameters)
    alone = torch.autograd.grad(without, adapter_parameters(plain.av))
    taught = torch.autograd.grad(expected, parameters, allow_unused=True)
    for whole, part, teacher in zip(both, alone, taught, strict=True):
        wanted = part if teacher is None else part + 0.25 * teacher
        torch.testing.assert_close(whole, wanted, rtol=1e-3, atol=1e-6)


class KilledError(Exception):
    """Stands for a kill between two checkpoints."""


@pytest.mark.parametrize("make", [ar_stage, av_stage])
def test_a_killed_run_ends_where_an_uninterrupted_one_does(
    make: Callable[[LoadedModel, Path], ARStage | AVStage], tiny: LoadedModel, tiny_av: Path, tmp_path: Path
) -> None:
    config = TrainConfig(steps=7, batch=4, lr=1e-2, warmup=2, checkpoint_every=3, eval_every=4)
    whole = make(tiny, tiny_av)
    expected = fit(whole, config, tmp_path / "whole", lambda _: None)
    killed = make(tiny, tiny_av)
    inner = killed.loss

    def dies(rows: list[int], step: int) -> tuple[Tensor, dict[str, float]]:
        if step == 5:
            raise KilledError
        return inner(rows, step)

    killed.loss = dies  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        fit(killed, config, tmp_path / "killed", lambda _: None)
    resumed = make(tiny, tiny_av)
    again = fit(resumed, config, tmp_path / "killed", lambda _: None)
    for ours, theirs in zip(trained(resumed), trained(whole), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert [figures["loss"] for figures in again] == [figures["loss"] for figures in expected]
    with pytest.raises(ConfigError, match="another lr"):
        fit(resumed, config.model_copy(update={"lr": 1e-3}), tmp_path / "killed", lambda _: None)


def test_a_step_that_is_not_finite_is_skipped_and_counted(tiny: LoadedModel, tiny_av: Path, tmp_path: Path) -> None:
    stage = ar_stage(tiny, tiny_av)
    inner = stage.loss
    stage.loss = lambda rows, step: (inner(rows, step)[0] * (math.nan if step == 1 else 1), {})  # type: ignore[method-assign]
    record = fit(stage, TrainConfig(steps=3, batch=4), tmp_path, lambda _: None)
    assert [figures["skipped"] for figures in record] == [0, 1, 1]
    assert all(bool(parameter.isfinite().all()) for parameter in trained(stage))


@pytest.mark.slow
def test_the_ar_learns_to_tell_64_vectors_apart(tiny: LoadedModel, tiny_av: Path, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(8)
    stage = ar_stage(tiny, tiny_av)
    stage.vectors = torch.randn(64, 32, generator=generator)
    stage.explanations = [f"{i % 8} {chr(65 + i // 8)}" for i in range(64)]
    stage.heldout = {"seen": (stage.vectors, stage.explanations)}
    record = fit(stage, TrainConfig(steps=250, batch=32, lr=2e-2, warmup=10, eval_every=250), tmp_path, lambda _: None)
    assert record[-1]["heldout_fve_seen"] > 0.9

"""Separate learning: stacks are their parts, draws a task's own, losses match slow references."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor, nn

from pipeline.auc import Sides, task_aucs
from pipeline.errors import PipelineError
from pipeline.examples import Examples
from pipeline.images import separate_images
from pipeline.images.params import Csi, Flow, Network, Svdd
from pipeline.images.separate import OwnImages, choose_tasks, set_apart, train_apart
from pipeline.images.separate_density import OwnFlow, gaussian_scores, maf_scores, settle
from pipeline.images.separate_images import csi_scores, svdd_scores
from pipeline.images.separate_ratio import feature_net, image_net, ratio_scores
from pipeline.models.conv_ratio import Augment
from pipeline.models.csi import SHIFTS, CsiNet, csi_loss, csi_score, rotations
from pipeline.models.maf import ConditionalMaf
from pipeline.models.simclr import nt_xent
from pipeline.models.stacked import EachAtItsBest, Stacked
from pipeline.models.svdd import SvddNet, centre_of, squared_distance
from pipeline.pairs import Pairs
from pipeline.sections import Schedule
from pipeline.training.checkpoint import CheckpointFile
from pipeline.training.session import Session
from tests.made_images import digits

CPU = torch.device("cpu")


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False),
        nn.BatchNorm2d(3),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(3 * 36, 1),
    )


def parts_of(net: Stacked) -> list[nn.Module]:
    parts = []
    for copy in range(net.copies):
        part = small_net()
        part.load_state_dict({name: value[copy] for name, value in net.tensors().items()})
        parts.append(part)
    return parts


def test_a_stack_trains_each_copy_as_if_by_itself() -> None:
    net = Stacked(small_net, 3, gen())
    parts = parts_of(net)
    assert not torch.equal(parts[0][0].weight, parts[1][0].weight)
    adam = torch.optim.Adam(net.parameters(), lr=0.01)
    adams = [torch.optim.Adam(part.parameters(), lr=0.01) for part in parts]
    for step in range(3):
        x = torch.randn(3, 5, 2, 8, 8, generator=gen(step))
        net(x).square().mean().backward()
        adam.step()
        adam.zero_grad()
        for part, own, images in zip(parts, adams, x, strict=True):
            part(images).square().mean().backward()
            own.step()
            own.zero_grad()
    for copy, part in enumerate(parts):
        for name, value in part.state_dict().items():
            torch.testing.assert_close(net.tensors()[name][copy], value, rtol=1e-3, atol=1e-5)
    net.eval()
    x = torch.randn(3, 5, 2, 8, 8, generator=gen(9))
    expected = torch.stack([part.eval()(images) for part, images in zip(parts, x, strict=True)])
    torch.testing.assert_close(net(x), expected, rtol=1e-3, atol=1e-4)


def test_each_copy_is_put_back_to_its_own_best() -> None:
    model = EachAtItsBest(Stacked(lambda: nn.Linear(1, 1), 2, gen()))
    seen = []
    for loss in ([3.0, 1.0], [2.0, 5.0], [4.0, 4.0]):
        with torch.no_grad():
            model.net.tensors()["weight"].add_(1)
        seen.append(model.net.tensors()["weight"].detach().clone())
        lowest = model.note(torch.tensor(loss))
    assert lowest == 1.5
    again = EachAtItsBest(Stacked(lambda: nn.Linear(1, 1), 2, gen(1)))
    again.load_state_dict(model.state_dict())  # a resumed run knows the bests too
    for one in (model, again):
        one.restore()
        assert torch.equal(one.net.tensors()["weight"], torch.stack([seen[1][0], seen[0][1]]))


def test_a_copy_without_a_loss_at_first_is_kept_once_it_has_one() -> None:
    """And it holds back none of the others: the training goes by the mean that `note` gives."""
    model = EachAtItsBest(Stacked(lambda: nn.Linear(1, 1), 3, gen()))
    assert model.note(torch.full((3,), torch.nan)) == torch.inf
    losses = ([3.0, torch.inf, torch.nan], [3.0, 800.0, torch.nan], [2.999, 900.0, torch.nan])
    means = [model.note(torch.tensor(loss)) for loss in losses]
    assert means[0] > means[1] > means[2]
    assert model.lowest.tolist() == pytest.approx([2.999, 800.0, torch.inf])


def examples(n: int = 400) -> tuple[Examples, np.ndarray]:
    """Drawn digits as images of 10 tasks, one a digit."""
    images, category = digits(n, 32, np.random.default_rng(0))
    x = images[:, None].astype(np.float32) / 128 - 1
    rows = np.arange(n)
    pairs = Pairs(rows, category.astype(np.int64), np.zeros(n, bool))
    return Examples(x, pairs, rows[: 3 * n // 4], rows[3 * n // 4 :], 10), category


def test_draws_are_a_tasks_own_images_and_those_of_all_training_images() -> None:
    made, category = examples()
    data = set_apart(made, np.array([2, 7]), CPU)
    own, base = data.train.draw(500, gen())
    assert (category[own[0]] == 2).all()
    assert (category[own[1]] == 7).all()
    assert len(own[0].unique()) == (category[:300] == 2).sum()  # all of them come up
    assert base.max() < 300
    assert len(set(category[base[0]])) == 10
    assert (category[data.valid.draw(50, gen())[0][1]] == 7).all()
    np.testing.assert_allclose(data.train.weights().sum(1), 1, rtol=1e-6)
    steps = list(data.epoch(10, gen()))
    assert len(steps) == 3
    assert steps[0][0].shape == (2, 10)
    assert len(list(set_apart(made, np.array([2, 7]), CPU, 20).epoch(10, gen()))) == 2
    assert len(list(set_apart(made, np.array([2, 7]), CPU, 50).epoch(10, gen()))) == 5


def test_ragged_tasks_never_draw_their_padding() -> None:
    ragged = OwnImages(torch.tensor([[5, 6, 7], [8, 0, 0]]), torch.tensor([3, 1]), torch.arange(9))
    own, _ = ragged.draw(200, gen())
    assert set(own[0].tolist()) == {5, 6, 7}
    assert set(own[1].tolist()) == {8}
    assert ragged.weights().tolist() == [[pytest.approx(1 / 3)] * 3, [1, 0, 0]]


def test_only_tasks_with_training_and_validation_images_are_chosen() -> None:
    made, _ = examples(40)  # 10 validation images, one of each task
    without = Examples(made.x, made.pairs, made.train, made.valid[made.valid % 10 != 3], made.tasks)
    assert choose_tasks(without, None, np.random.default_rng(0)).tolist() == [
        *(0, 1, 2, 4, 5, 6, 7, 8, 9)
    ]
    chosen = choose_tasks(without, 4, np.random.default_rng(0))
    assert len(set(chosen)) == 4
    assert chosen.tolist() == sorted(chosen)
    with pytest.raises(PipelineError, match=r"separate.tasks: 10 tasks are wanted; 9 have"):
        choose_tasks(without, 10, np.random.default_rng(0))


def test_the_gaussian_is_that_of_greatest_likelihood() -> None:
    made, category = examples(200)
    x = torch.randn(200, 4, generator=gen()) * 2 + torch.from_numpy(category)[:, None]
    data = set_apart(made, np.array([1, 6]), CPU)
    scores = gaussian_scores(data, x, x[:50])
    own = x[:150][category[:150] == 6].numpy()
    expected = multivariate_normal(own.mean(0), np.diag(own.var(0))).logpdf(x[:50].numpy())
    np.testing.assert_allclose(scores[1], expected, rtol=1e-4, atol=1e-4)


SCHEDULE = Schedule(lr=0.005, batch_size=16, max_epochs=25, patience=25)


def quiet() -> dict[str, object]:
    return {"seed": 0, "session": Session()}


@pytest.mark.parametrize("on_features", [False, True])
def test_ratios_learned_apart_tell_their_digit(on_features: bool) -> None:
    made, category = examples()
    tasks = np.array([0, 1, 4])
    data = set_apart(made, tasks, CPU)
    x = torch.from_numpy(made.x)
    make: Callable[[], nn.Module] = lambda: image_net(1, Network(width=4, head=16))  # noqa: E731
    if on_features:
        x = x[:, :, ::4, ::4].flatten(1)
        make = lambda: feature_net(64, [32])  # noqa: E731
    augment = None if on_features else Augment(black=[0.0], flips=False)
    valid = slice(300, 400)
    scores = ratio_scores(make, data, x, x[valid], SCHEDULE, augment=augment, **quiet())
    member = category[valid] == tasks[:, None]
    assert task_aucs(scores, Sides(member, ~member)).auc.mean() > 0.75


def test_a_resumed_training_apart_equals_an_unbroken_one() -> None:
    class Kept:
        """Keeps the snapshot of one epoch, as tensors of its own."""

        def __init__(self, epoch: int) -> None:
            self.epoch, self.snapshot = epoch, None

        def load(self):  # noqa: ANN202
            return self.snapshot

        def save(self, take) -> None:  # noqa: ANN001
            import copy

            snapshot = take()
            if snapshot.epoch == self.epoch:
                self.snapshot = copy.deepcopy(snapshot)

    made, _ = examples(200)
    data, x = set_apart(made, np.arange(3), CPU), torch.from_numpy(made.x).flatten(1)

    def run(kept: Kept, epochs: int) -> dict[str, Tensor]:
        net = Stacked(lambda: feature_net(1024, [4]), 3, gen())
        schedule = Schedule(lr=0.01, batch_size=8, max_epochs=epochs, patience=9)
        train_apart(
            net,
            data,
            lambda own, base: (net(x[own]) - 1).square().mean((1, 2)) + net(x[base]).mean((1, 2)),
            schedule,
            seed=0,
            session=Session(checkpoint=kept),
        )
        return {name: value.detach().clone() for name, value in net.tensors().items()}

    unbroken, kept = run(Kept(-1), 4), Kept(2)
    run(kept, 2)
    for name, value in run(kept, 4).items():
        assert torch.equal(value, unbroken[name])


def test_deep_svdd_has_no_bias_and_half_a_million_weights() -> None:
    net = SvddNet(channels=3, width=32)
    assert all(layer.bias is None for layer in net.modules() if hasattr(layer, "bias"))
    assert sum(p.numel() for p in net.encoder.parameters()) == 520_544  # the paper: 0.5M
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 3, 32, 32)


def test_the_centre_keeps_away_from_zero_and_distances_are_squared() -> None:
    outputs = torch.tensor([[[0.02, -0.04, 3.0], [0.0, -0.02, 1.0], [9.0, 9.0, 9.0]]])
    weight = torch.tensor([[[0.5], [0.5], [0.0]]])
    centre = centre_of(outputs, weight)
    torch.testing.assert_close(centre, torch.tensor([[0.1, -0.1, 2.0]]))
    expected = (0.02 - 0.1) ** 2 + (-0.04 + 0.1) ** 2 + 1
    assert squared_distance(outputs, centre)[0, 0].item() == pytest.approx(expected)


def slow_nt_xent(first: Tensor, second: Tensor, temperature: float) -> float:
    """Equation 1 of SimCLR, view by view."""
    views = [*first, *second]
    losses = []
    for i, view in enumerate(views):
        partner = (i + len(first)) % len(views)
        similar = [torch.cosine_similarity(view, v, dim=0).item() / temperature for v in views]
        total = sum(math.exp(s) for j, s in enumerate(similar) if j != i)
        losses.append(-math.log(math.exp(similar[partner]) / total))
    return sum(losses) / len(losses)


def test_nt_xent_is_equation_1() -> None:
    first, second = torch.randn(2, 5, 7, generator=gen())
    assert nt_xent(first, second, 0.5).item() == pytest.approx(
        slow_nt_xent(first, second, 0.5), rel=1e-5
    )
    same = torch.ones(4, 3)
    assert nt_xent(same, same, 0.5).item() == pytest.approx(math.log(7), rel=1e-5)


def test_csi_contrasts_every_rotation_and_tells_which_it_is() -> None:
    first, second = torch.randn(2, SHIFTS, 3, 5 + SHIFTS, generator=gen())
    items = [view.reshape(SHIFTS * 3, -1) for view in (first, second)]
    contrast = slow_nt_xent(items[0][:, :5], items[1][:, :5], 0.3)
    wrong = [
        -view[turn, i, 5:].log_softmax(0)[turn].item()
        for view in (first, second)
        for turn in range(SHIFTS)
        for i in range(3)
    ]
    expected = contrast + sum(wrong) / len(wrong)
    assert csi_loss(first, second, 0.3).item() == pytest.approx(expected, rel=1e-5)


def test_csi_scores_are_equations_6_to_8() -> None:
    test, train = torch.randn(SHIFTS, 4, 5 + SHIFTS), torch.randn(SHIFTS, 6, 5 + SHIFTS).abs()

    def contrast(turn: int, output: Tensor) -> float:
        z = output[:5]
        best = max(torch.cosine_similarity(z, known[:5], dim=0).item() for known in train[turn])
        return best * z.norm().item()

    expected = []
    for image in range(4):
        total = 0.0
        for turn in range(SHIFTS):
            scale = sum(contrast(turn, known) for known in train[turn]) / 6
            total += contrast(turn, test[turn, image]) / scale
            scale = sum(known[5 + turn].item() for known in train[turn]) / 6
            total += test[turn, image, 5 + turn].item() / scale
        expected.append(total)
    np.testing.assert_allclose(csi_score(test, train), expected, rtol=1e-4)


def test_shifts_are_the_four_quarter_turns() -> None:
    x = torch.randn(2, 3, 6, 6, generator=gen())
    turned = rotations(x)
    assert torch.equal(turned[0], x)
    assert torch.equal(turned[2], x.flip((-2, -1)))
    assert torch.equal(turned[1].rot90(-1, (-2, -1)), x)
    assert CsiNet(channels=3, width=2, features=8)(torch.zeros(2, 3, 32, 32)).shape == (2, 12)


def test_svdd_and_csi_score_every_image_under_every_task_the_same_way_again() -> None:
    made, _ = examples(120)
    data = set_apart(made, np.array([0, 3]), CPU)
    x = torch.from_numpy(made.x)
    svdd = Svdd(
        width=2,
        autoencoder_epochs=1,
        weight_decay=1e-6,
        lr=1e-3,
        batch_size=4,
        max_epochs=2,
        patience=2,
    )
    csi = Csi(width=4, temperature=0.5, lr=1e-3, batch_size=4, max_epochs=6, patience=6)
    for scores in (
        lambda: svdd_scores(data, x, x[:7], svdd, **quiet()),
        lambda: csi_scores(data, x.clamp(0, 1), x[:7].clamp(0, 1), csi, flips=False, **quiet()),
    ):
        first = scores()
        assert first.shape == (2, 7)
        assert np.isfinite(first).all()
        assert len(np.unique(first)) == 14
        np.testing.assert_allclose(scores(), first, rtol=1e-4)


def test_deep_svdd_goes_on_with_the_centre_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Autoencoders that are trained again may end elsewhere: on another device, or more threads."""
    made, _ = examples(120)
    data, x = set_apart(made, np.array([0, 3]), CPU), torch.from_numpy(made.x)
    params = Svdd(
        width=2,
        autoencoder_epochs=1,
        weight_decay=0,
        lr=1e-3,
        batch_size=4,
        max_epochs=2,
        patience=2,
    )

    def scores(epochs: int, kept: CheckpointFile | None) -> np.ndarray:
        wanted = params.model_copy(update={"max_epochs": epochs})
        return svdd_scores(data, x, x[:7], wanted, seed=0, session=Session(checkpoint=kept))

    whole, file = scores(2, None), tmp_path / "svdd.safetensors"
    with CheckpointFile(file, seconds=0, tell=print) as kept:
        scores(1, kept)
    with monkeypatch.context() as patch:
        patch.setattr(separate_images, "centre_of", lambda *of: centre_of(*of) + 1)
        with CheckpointFile(file, seconds=0, tell=print) as kept:
            resumed = scores(2, kept)
    np.testing.assert_allclose(resumed, whole, rtol=1e-5)


def test_the_flow_of_a_task_is_the_conditional_one_without_modulation() -> None:
    net = Stacked(lambda: OwnFlow(x_dim=3, hidden=8), 2, gen())
    x = torch.randn(2, 40, 3, generator=gen(1))
    weight = torch.full((2, 40), 1 / 40)
    settle(net, x, weight)
    for copy in range(2):
        flow = ConditionalMaf(x_dim=3, tasks=1, blocks=5, hidden=8)
        own = {name: value[copy].detach() for name, value in net.tensors().items()}
        flow.load_state_dict({name: own[name] for name in flow.state_dict() if name in own}, False)
        with torch.no_grad():
            flow.s.fill_(20)  # tanh: 1
        flow.settle(x[copy], torch.zeros(40, dtype=torch.int64))
        expected = flow.eval()(x[copy], torch.zeros(40, dtype=torch.int64))
        torch.testing.assert_close(net.eval()(x)[copy], expected, rtol=1e-4, atol=1e-4)


def test_statistics_leave_the_padding_out() -> None:
    net = Stacked(lambda: OwnFlow(x_dim=3, hidden=8), 1, gen())
    x = torch.randn(1, 10, 3, generator=gen(1))
    settle(net, x[:, :6], torch.full((1, 6), 1 / 6))
    expected = {name: value.clone() for name, value in net.tensors().items()}
    padded = torch.cat([torch.full((1, 6), 1 / 6), torch.zeros(1, 4)], 1)
    settle(net, x, padded)
    for name, value in net.tensors().items():
        torch.testing.assert_close(value, expected[name])


def test_flows_learned_apart_know_their_own_cloud() -> None:
    made, category = examples(400)
    x = torch.randn(400, 3, generator=gen()) + 2 * torch.from_numpy(category)[:, None]
    tasks = np.array([2, 7])
    data = set_apart(made, tasks, CPU)
    wanted = Flow(hidden=8, weight_decay=0, lr=0.01, batch_size=16, max_epochs=8, patience=8)
    scores = maf_scores(data, x, x[300:], wanted, **quiet())
    member = category[300:] == tasks[:, None]
    assert task_aucs(scores, Sides(member, ~member)).auc.min() > 0.9

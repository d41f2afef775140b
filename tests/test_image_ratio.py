"""Algorithm 1 on images: Table 4's shapes, laws of the augmentation, initialisations, learning."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.arrays import Bools, Ints
from pipeline.auc import task_aucs
from pipeline.datasets.images import Images, read_mnist
from pipeline.embeddings import task_means
from pipeline.examples import Examples
from pipeline.images.params import ImageProjection, Network, seed_tasks_of, start_of
from pipeline.images.ratio import (
    Learned,
    image_values,
    mean_auc,
    pretrain_images,
    project_images,
    start,
    task_statistic,
    train_images,
)
from pipeline.images.tasks import (
    active_categories,
    category_sides,
    image_examples,
    make_tasks,
    split_images,
    standardised,
)
from pipeline.models.conv_ratio import Augment, ConvPreEmbeddingNet, ConvRatioNet, Trunk
from pipeline.models.ratio import SeedRatios, TaskRatios
from pipeline.models.weights import draw_layers
from pipeline.scoring import score_all
from pipeline.sections import Schedule
from pipeline.steps.dropout import MaskSource, set_masks
from pipeline.steps.pair_loss import ratio_loss
from pipeline.training.session import Session
from tests.made_images import write_mnist

CPU = torch.device("cpu")
NETWORK = Network(width=4, head=16)
BLACK = (-1.5, -2.0, -1.0)
SCHEDULE = Schedule(lr=0.005, batch_size=32, max_epochs=12, patience=12)


def images(n: int, channels: int = 3) -> torch.Tensor:
    return torch.randn(n, channels, 32, 32, generator=torch.Generator().manual_seed(0))


def augment(flips: bool, seed: int = 0, black: Sequence[float] = BLACK) -> Augment:
    module = Augment(black=black, flips=flips)
    set_masks(module, MaskSource(seed, CPU))
    return module


@pytest.mark.parametrize(("channels", "weights"), [(3, 3_052), (1, 3_050)])
def test_the_trunk_has_the_sides_and_weights_of_table_4(channels: int, weights: int) -> None:
    trunk = Trunk(channels=channels, width=64).eval()
    sides, h = [], images(2, channels)
    for layer in trunk.layers:
        h = layer(h)
        if isinstance(layer, nn.Conv2d):
            sides.append((h.shape[-1], h.shape[1]))
    assert sides == [(16, 64), (8, 128), (4, 256), (1, 512)]
    assert not isinstance(trunk.layers[-2], nn.ReLU)  # Table 4: the last has no activation
    assert sum(p.numel() for p in trunk.parameters()) // 1_000 == weights


def test_augmentation_is_a_crop_of_the_padded_image_or_of_its_mirror_image() -> None:
    x = images(40)
    padded = torch.tensor(BLACK).view(1, 3, 1, 1).repeat(40, 1, 40, 40)
    padded[:, :, 4:36, 4:36] = x
    seen = set()
    for image, whole in zip(augment(flips=True)(x), padded, strict=True):
        crops = {
            (top, left, flipped): whole[:, top : top + 32, left : left + 32].flip([2] * flipped)
            for top, left, flipped in product(range(9), range(9), (False, True))
        }
        found = {place for place, crop in crops.items() if torch.equal(image, crop)}
        assert len(found) == 1
        seen |= found
    assert {flipped for _, _, flipped in seen} == {False, True}
    assert len({place[:2] for place in seen}) > 20


def test_without_flips_and_in_eval_mode_nothing_is_mirrored_or_moved() -> None:
    x = images(60)
    corner = torch.zeros(60, 1, 32, 32)
    corner[:, :, :, 0] = 1  # a bar at the left stays left of the middle unless mirrored
    assert augment(flips=False, black=[0.0])(corner)[..., 16:].sum() == 0
    assert augment(flips=True, black=[0.0])(corner)[..., 16:].sum() > 0
    assert torch.equal(augment(flips=True).eval()(x), x)


def test_places_are_uniform_over_nine() -> None:
    draws = MaskSource(0, CPU).integers(90_000, 9)
    counts = torch.bincount(draws)
    assert len(counts) == 9
    assert counts.tolist() == pytest.approx([10_000] * 9, rel=0.04)


def test_pairs_and_grid_are_the_textbook_network() -> None:
    net = ConvRatioNet(task_dim=3, black=BLACK, width=4, head=8, flips=True)
    draw_layers(net, torch.Generator().manual_seed(0))
    net.eval()
    x, e = images(5), torch.randn(4, 3)
    user, task = torch.tensor([[0, 4, 2], [1, 1, 0]]), torch.tensor([3, 0, 1])
    first, last = net.first, net.rest[-1]
    h = net.trunk.layers(x)

    def textbook(u: int, t: int) -> torch.Tensor:
        hidden = first.weight @ torch.cat([h[u], e[t]]) + first.bias
        return (last.weight @ hidden.relu() + last.bias).squeeze()

    expected = torch.stack(
        [
            torch.stack([textbook(u, t) for u, t in zip(row, task, strict=True)])
            for row in user.tolist()
        ]
    )
    model = TaskRatios(net, x=x, e=e)
    torch.testing.assert_close(model(user, task), expected)
    torch.testing.assert_close(model.loss(user, task), ratio_loss(expected))
    grid = score_all(net, x, e)
    assert grid.shape == (4, 5)
    np.testing.assert_allclose(grid[3, 1], textbook(1, 3).item(), rtol=1e-4, atol=1e-6)


def test_an_image_that_occurs_often_goes_through_the_trunk_once() -> None:
    net = ConvRatioNet(task_dim=3, black=BLACK, width=4, head=8, flips=True)
    seen: list[int] = []
    net.trunk.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    user, task = torch.tensor([[0, 4, 2, 4], [4, 0, 4, 2]]), torch.tensor([3, 0, 1, 1])
    set_masks(net, MaskSource(0, CPU))
    model = TaskRatios(net, x=images(5), e=torch.randn(4, 3))
    model.eval()(user, task)
    model.train().loss_within(user[0], task)
    assert seen == [3, 4]


def test_a_loss_within_the_batch_is_that_of_its_pairs_with_each_other() -> None:
    net = ConvRatioNet(task_dim=3, black=BLACK, width=4, head=8, flips=True)
    draw_layers(net, torch.Generator().manual_seed(0))
    net.eval()
    x, e, task = images(5), torch.randn(4, 3), torch.tensor([3, 0, 1])
    user, others = torch.tensor([4, 0, 2]), torch.tensor([2, 4, 0])
    logits = torch.stack([net(x[user], e[task]), net(x[others], e[task])])
    torch.testing.assert_close(
        TaskRatios(net, x=x, e=e).loss_within(user, task), ratio_loss(logits)
    )


def test_a_head_of_the_pre_embedding_is_its_column() -> None:
    net = ConvPreEmbeddingNet(heads=6, black=BLACK[:1], width=4, head=8, flips=False)
    draw_layers(net, torch.Generator().manual_seed(0))
    net.eval()
    x, user, task = images(5, 1), torch.tensor([[0, 3], [4, 3]]), torch.tensor([5, 2])
    logits = net(x)[user, task]
    model = SeedRatios(net, x=x)
    torch.testing.assert_close(model(user, task), logits)
    torch.testing.assert_close(model.loss(user, task), ratio_loss(logits))


def test_every_parameter_gets_a_gradient_and_the_weights_follow_the_generator() -> None:
    def drawn(seed: int) -> ConvRatioNet:
        net = ConvRatioNet(task_dim=3, black=BLACK, width=4, head=8, flips=True)
        draw_layers(net, torch.Generator().manual_seed(seed))
        set_masks(net, MaskSource(0, CPU))
        return net

    net = drawn(1)
    model = TaskRatios(net, x=images(9), e=torch.randn(4, 3))
    model(torch.arange(8).view(2, 4), torch.arange(4)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    weights = [net.trunk.layers[0].weight for net in (drawn(1), drawn(1), drawn(2))]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return read_mnist(write_mnist(tmp_path_factory.mktemp("raw"), train=1000, test=100))


class Made:
    """Drawn digits, their tasks of k active categories, and the sides of the test images."""

    def __init__(self, digits: Images, k: int) -> None:
        import pyarrow as pa

        rows, splits = split_images(digits, train=None, valid=100, test=None, seed=0)
        users = pa.table({"user_id": rows, "category": digits.category[rows]})
        tasks = make_tasks(users, splits, k, seed=0)
        x = standardised(digits.pixels, np.flatnonzero(~digits.test))
        self.examples: Examples = image_examples(x, users, splits, tasks)
        self.active: Bools = active_categories(tasks.tasks)
        self.test: Ints = np.flatnonzero(digits.test)
        self.x = x[self.test]
        self.sides = category_sides(self.active, digits.category[self.test])
        self.valid_sides = category_sides(self.active, digits.category[self.examples.valid])

    def statistic(self, init: str) -> np.ndarray:
        return task_statistic(
            init,
            self.examples,
            active=self.active,
            cluster=np.arange(len(self.examples.x)) % 10,
            pre_embedding=pretty,
        )


def pretty(m0: int) -> ConvPreEmbeddingNet:
    net = ConvPreEmbeddingNet(heads=m0, black=BLACK[:1], width=4, head=8, flips=False)
    draw_layers(net, torch.Generator().manual_seed(0))
    return net


@pytest.fixture(scope="module")
def pairs_of_digits(digits: Images) -> Made:
    return Made(digits, 2)


@pytest.fixture(scope="module")
def learned(pairs_of_digits: Made) -> Learned:
    """A ratio from the learned embedding of 20 seed tasks, its e kept where it started."""
    made = pairs_of_digits
    options = {"dataset": "mnist", "network": NETWORK, "schedule": SCHEDULE, "seed": 0}
    quiet = {"session": Session()}
    pretrained = pretrain_images(made.examples, 20, **options, **quiet)
    assert len(pretrained.seed_tasks) == 20
    means = project_images(pretrained.net, made.examples)
    wanted = ImageProjection(random_dim=10, standardise=True)
    e, projection = start(means, made.examples.tasks, wanted, seed=0)
    assert projection is not None
    trained = train_images(
        made.examples, e, watched=made.valid_sides, freeze_e=True, **options, **quiet
    )
    assert trained.history[-1]["valid_auc"] > 0.7
    assert (trained.e == e).all()
    values = image_values(pretrained.net, made.examples.x)
    return Learned(values, projection, trained.net)


def test_the_ratio_tells_active_categories_of_unseen_images(
    pairs_of_digits: Made, learned: Learned
) -> None:
    made = pairs_of_digits
    learners = made.examples.learned
    e = learned.projection.apply(task_means(learned.values, learners, made.examples.tasks))
    assert mean_auc(learned.net, made.x, e, made.sides) > 0.75


def test_tasks_of_another_k_are_placed_by_projection_alone(
    digits: Images, learned: Learned
) -> None:
    other = Made(digits, 3)
    assert learned.auc_on(other.examples, other.x, other.sides) > 0.65


def test_mean_auc_is_the_mean_over_tasks(pairs_of_digits: Made, learned: Learned) -> None:
    made, e = pairs_of_digits, np.zeros((45, 20), np.float32)
    scores = learned.net(torch.from_numpy(made.x), torch.zeros(100, 20)).detach().numpy()
    expected = task_aucs(np.tile(scores, (45, 1)), made.sides).auc.mean()
    assert mean_auc(learned.net, made.x, e, made.sides) == pytest.approx(expected, abs=1e-3)


def test_more_seed_tasks_than_tasks_takes_all(digits: Images) -> None:
    made = Made(digits, 1)
    once = Schedule(lr=0.01, batch_size=256, max_epochs=1, patience=1)
    done = pretrain_images(
        made.examples,
        64,
        dataset="mnist",
        network=NETWORK,
        schedule=once,
        seed=0,
        session=Session(),
    )
    assert done.seed_tasks.tolist() == list(range(10))


def test_each_initialisation_is_the_statistic_of_the_paper(pairs_of_digits: Made) -> None:
    made = pairs_of_digits
    assert (made.statistic("label") == made.active).all()
    learned_pairs = made.examples.learned
    shares = np.stack(
        [
            np.bincount(learned_pairs.user[learned_pairs.task == t] % 10, minlength=10)
            / max((learned_pairs.task == t).sum(), 1)
            for t in range(45)
        ]
    )
    exposed = np.bincount(learned_pairs.task, minlength=45) > 0
    np.testing.assert_allclose(made.statistic("pseudo")[exposed], shares[exposed], rtol=1e-5)
    assert made.statistic("learned-7").shape == (45, 7)
    with pytest.raises(ValueError, match="init must be label, pseudo"):
        made.statistic("other")


def test_random_embeddings_follow_the_seed_and_have_no_projection() -> None:
    wanted = ImageProjection(random_dim=10, standardise=True)
    first, none = start(None, 45, wanted, seed=0)
    assert none is None
    assert first.shape == (45, 10)
    assert (first == start(None, 45, wanted, seed=0)[0]).all()
    assert (first != start(None, 45, wanted, seed=1)[0]).all()


def test_names_of_initialisations_are_read() -> None:
    assert [seed_tasks_of(name) for name in ("label", "learned-10", "learned-64-frozen")] == [
        *(None, 10, 64)
    ]
    assert start_of("learned-64-frozen") == "learned-64"
    assert start_of("random") == "random"

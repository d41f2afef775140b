"""The networks against their textbook form: one concatenated input, masks written out."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor, nn

from pipeline.models.ratio import PreEmbeddingNet, RatioNet, SeedRatios, TaskRatios
from pipeline.models.weights import draw_layers, draw_linear
from pipeline.params import load_params
from pipeline.platt import Platt
from pipeline.steps.dropout import MaskSource, ReluDropout, representable, set_masks
from pipeline.steps.pair_loss import ratio_loss

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
X_DIM, E_DIM, USERS, TASKS = 5, 3, 12, 6


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rows(n: int, *shape: int) -> Tensor:
    return torch.randint(n, shape, generator=torch.Generator().manual_seed(n))


def drawn(net: nn.Module) -> nn.Module:
    """The network with weights large enough for every layer to matter."""
    draw_layers(net, torch.Generator().manual_seed(0))
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data *= 2
    return net


def ratio_net(dropout: Sequence[float] = (0.5, 0.4, 0.2)) -> RatioNet:
    return drawn(RatioNet(x_dim=X_DIM, task_dim=E_DIM, hidden=(9, 8, 7), dropout=dropout))


def pre_embedding_net(dropout: Sequence[float] = (0.5, 0.4, 0.2)) -> PreEmbeddingNet:
    return drawn(PreEmbeddingNet(x_dim=X_DIM, heads=TASKS, hidden=(9, 8, 7), dropout=dropout))


def linear_layers(net: nn.Module) -> list[nn.Linear]:
    return [layer for layer in net.modules() if isinstance(layer, nn.Linear)]


def textbook(net: nn.Module, h: Tensor, masks: Iterator[Tensor]) -> Tensor:
    """Fully connected layers, with ReLU and a mask after each but the last."""
    *hidden, last = linear_layers(net)
    for layer in hidden:
        h = torch.relu(layer(h)) * next(masks)
    return last(h)


def no_masks() -> Iterator[Tensor]:
    while True:
        yield torch.tensor(1.0)


def same_masks(seed: int, shape: tuple[int, ...], widths: Sequence[int]) -> Iterator[Tensor]:
    """The scaled masks that a network of the default rates draws from MaskSource(seed)."""
    source = MaskSource(seed, CPU)
    for width, rate in zip(widths, (0.5, 0.4, 0.2), strict=True):
        kept = source.dropped(torch.Size([*shape, width]), rate) >= 0
        yield kept.float() / (1 - representable(rate))


def assert_same(found: Tensor, expected: Tensor, leaves: Sequence[Tensor]) -> None:
    """Equal values, and equal gradients of all leaves under random weights of the values."""
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    weight = normal(*found.shape, seed=9)
    of_found, of_expected = (
        torch.autograd.grad((value * weight).sum(), leaves, retain_graph=True)
        for value in (found, expected)
    )
    torch.testing.assert_close(of_found, of_expected, rtol=1e-4, atol=1e-4)


def test_the_default_network_is_that_of_table_5() -> None:
    params = load_params(ROOT / "params.yaml", "features", "ratio", "pretrain", "projection")
    net = RatioNet(
        x_dim=params.features.f_dim,
        task_dim=params.projection.random_dim,
        hidden=params.ratio.hidden,
        dropout=params.ratio.dropout,
    )
    assert (params.features.f_dim, params.projection.random_dim) == (100, 16)
    assert sum(p.numel() for p in net.parameters()) == 5345
    for trunk in (net, RatioNet(x_dim=100, task_dim=16), PreEmbeddingNet(x_dim=116, heads=1)):
        assert [m.out_features for m in linear_layers(trunk)] == [32, 32, 16, 1]
        assert [m.rate for m in trunk.modules() if isinstance(m, ReluDropout)] == [0.5, 0.5, 0.3]
    assert params.pretrain.hidden == params.ratio.hidden
    assert params.pretrain.dropout == params.ratio.dropout


@pytest.mark.parametrize("shape", [(40,), (2, 40), (9,), (2, 4), (3,), (2, 2)])
def test_logits_of_pairs_are_those_of_the_concatenated_input(shape: tuple[int, ...]) -> None:
    """More pairs than users and tasks, between the two, and fewer: all ways to the first layer."""
    net = ratio_net().eval()
    x, e = normal(USERS, X_DIM).requires_grad_(), normal(TASKS, E_DIM, seed=1).requires_grad_()
    user, task = rows(USERS, *shape), rows(TASKS, shape[-1])
    joined = torch.cat([x[user], e[task].expand(*shape, E_DIM)], -1)
    leaves = [x, e, *net.parameters()]
    assert_same(
        net.of_pairs(x, e, user, task), textbook(net, joined, no_masks()).squeeze(-1), leaves
    )
    assert_same(net(x[user], e[task].expand(*shape, E_DIM)), net.of_pairs(x, e, user, task), leaves)


def test_logits_of_a_grid_have_a_row_a_task() -> None:
    net = ratio_net().eval()
    x, e = normal(USERS, X_DIM).requires_grad_(), normal(TASKS, E_DIM, seed=1).requires_grad_()
    joined = torch.cat([x.expand(TASKS, USERS, X_DIM), e[:, None].expand(TASKS, USERS, E_DIM)], -1)
    assert_same(
        net.of_grid(net.user_side(x), e),
        textbook(net, joined, no_masks()).squeeze(-1),
        [x, e, *net.parameters()],
    )


@pytest.mark.parametrize("n", [40, 3])
def test_under_dropout_the_network_is_the_textbook_s_with_the_same_masks(n: int) -> None:
    net = ratio_net().train()
    set_masks(net, MaskSource(7, CPU))
    x, e = normal(USERS, X_DIM).requires_grad_(), normal(TASKS, E_DIM, seed=1).requires_grad_()
    user, task = rows(USERS, 2, n), rows(TASKS, n)
    joined = torch.cat([x[user], e[task].expand(2, n, E_DIM)], -1)
    slow = textbook(net, joined, same_masks(7, (2, n), (9, 8, 7))).squeeze(-1)
    assert_same(net.of_pairs(x, e, user, task), slow, [x, e, *net.parameters()])


def test_the_loss_under_dropout_has_the_law_of_torch_s_own_dropout() -> None:
    """Mean and spread over 3,000 masks of one batch, against nn.Dropout on the textbook network."""
    n, masks = 16, 3000
    net = ratio_net((0.5, 0.4, 0.2)).train()
    set_masks(net, MaskSource(0, CPU))
    slow = nn.Sequential()
    for layer, rate in zip(linear_layers(net), (0.5, 0.4, 0.2, 0.0), strict=True):
        slow.extend([layer, nn.ReLU(), nn.Dropout(rate)] if rate else [layer])
    x, e = normal(USERS, X_DIM), normal(TASKS, E_DIM, seed=1)
    user, task = rows(USERS, 2, n), rows(TASKS, n)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fast_logits = net.of_pairs(x, e, user.repeat(1, masks), task.repeat(masks))
        joined = torch.cat([x[user], e[task].expand(2, n, E_DIM)], -1)
        slow_logits = slow(joined.repeat(1, masks, 1)).squeeze(-1)
        fast, plain = (
            torch.stack([ratio_loss(part) for part in logits.split(n, 1)]).double()
            for logits in (fast_logits, slow_logits)
        )
    error = float(((fast.var() + plain.var()) / masks).sqrt())
    assert error < 0.01 * float(plain.mean())
    assert abs(float(fast.mean() - plain.mean())) < 3 * error
    assert float(fast.std()) == pytest.approx(float(plain.std()), rel=0.1)


@pytest.mark.parametrize("n", [40, 3])
def test_a_pair_of_the_pre_embedding_net_gets_the_head_of_its_task(n: int) -> None:
    net = pre_embedding_net().eval()
    x = normal(USERS, X_DIM).requires_grad_()
    user, task = rows(USERS, 2, n), rows(TASKS, n)
    every_head = textbook(net, x[user], no_masks())  # (2, n, heads)
    own = every_head.gather(2, task.expand(2, n)[..., None]).squeeze(-1)
    assert_same(net.of_pairs(x, user, task), own, [x, *net.parameters()])
    assert_same(net(x[user]), every_head, [x, *net.parameters()])


def test_under_dropout_a_head_sees_the_masked_trunk() -> None:
    net = pre_embedding_net().train()
    set_masks(net, MaskSource(7, CPU))
    x, user, task = normal(USERS, X_DIM), rows(USERS, 2, 30), rows(TASKS, 30)
    every_head = textbook(net, x[user], same_masks(7, (2, 30), (9, 8, 7)))
    own = every_head.gather(2, task.expand(2, 30)[..., None]).squeeze(-1)
    assert_same(net.of_pairs(x, user, task), own, [*net.parameters()])


def test_only_the_heads_of_sampled_tasks_get_a_gradient() -> None:
    net = pre_embedding_net().eval()
    net.of_pairs(
        normal(USERS, X_DIM), rows(USERS, 2, 9), torch.tensor([1, 4] * 4 + [1])
    ).sum().backward()
    assert net.heads.bias.grad is not None
    assert net.heads.bias.grad.tolist() == [0, 10, 0, 0, 8, 0]


def test_all_tasks_share_a_network_and_each_has_an_embedding_that_starts_as_given() -> None:
    net, x, e = ratio_net().eval(), normal(USERS, X_DIM), normal(TASKS, E_DIM, seed=1)
    model = TaskRatios(net, x=x, e=e)
    user, task = rows(USERS, 2, 9), rows(TASKS, 9)
    torch.testing.assert_close(model(user, task), net(x[user], e[task].expand(2, 9, E_DIM)))
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learned == {"e", *(f"net.{name}" for name, _ in net.named_parameters())}
    model.e.data += 1
    torch.testing.assert_close(e, normal(TASKS, E_DIM, seed=1))  # the caller's own
    assert "x" not in model.state_dict()


def test_frozen_embeddings_are_not_learned() -> None:
    model = TaskRatios(ratio_net(), x=normal(3, X_DIM), e=normal(2, E_DIM), freeze_e=True)
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["e"]


def test_seed_ratios_are_the_pre_embedding_net_on_rows_of_users() -> None:
    net, x = pre_embedding_net().eval(), normal(USERS, X_DIM)
    user, task = rows(USERS, 2, 9), rows(TASKS, 9)
    model = SeedRatios(net, x=x)
    torch.testing.assert_close(model(user, task), net.of_pairs(x, user, task))
    assert "x" not in model.state_dict()


@pytest.mark.parametrize("inputs", [None, 400])
def test_weights_are_uniform_within_the_inverse_root_of_the_inputs(inputs: int | None) -> None:
    layer = nn.Linear(100, 40)
    draw_linear(layer, torch.Generator().manual_seed(0), inputs)
    bound = (inputs or 100) ** -0.5
    for values in (layer.weight, layer.bias):
        scaled = values.detach().numpy().ravel() / bound
        assert kstest(scaled, "uniform", args=(-1, 2)).pvalue > 0.001
    assert abs(np.abs(layer.weight.detach().numpy()).max() / bound - 1) < 0.01


def test_every_layer_is_drawn_in_order_from_the_generator_alone() -> None:
    once, again, other = (
        nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 2))) for _ in range(3)
    )
    for net, seed in ((once, 0), (again, 0), (other, 1)):
        draw_layers(net, torch.Generator().manual_seed(seed))
    gen = torch.Generator().manual_seed(0)
    for one, same, different in zip(*map(linear_layers, (once, again, other)), strict=True):
        expected = nn.Linear(one.in_features, one.out_features)
        draw_linear(expected, gen)
        for name in ("weight", "bias"):
            assert torch.equal(getattr(one, name), getattr(same, name))
            assert torch.equal(getattr(one, name), getattr(expected, name))
            assert not torch.equal(getattr(one, name), getattr(different, name))


def with_heads(linear: float) -> tuple[RatioNet, Tensor, Tensor]:
    """A network with heads, users x, and embeddings that end in a head each."""
    net = RatioNet(
        x_dim=X_DIM,
        task_dim=E_DIM + X_DIM + 1,
        hidden=(9, 8, 7),
        dropout=(0.5, 0.4, 0.2),
        linear=linear,
    )
    draw_layers(net, torch.Generator().manual_seed(0))
    e = normal(TASKS, E_DIM + X_DIM + 1, seed=1)
    return net, normal(USERS, X_DIM).requires_grad_(), e.requires_grad_()


@pytest.mark.parametrize("n", [40, 3])
def test_a_head_adds_a_function_of_x_that_is_linear(n: int) -> None:
    net, x, e = with_heads(0.1)
    net.eval()
    user, task = rows(USERS, 2, n), rows(TASKS, n)
    seen, weight, bias = e.split([E_DIM, X_DIM, 1], dim=1)
    joined = torch.cat([x[user], seen[task].expand(2, n, E_DIM)], -1)
    expected = textbook(net, joined, no_masks()).squeeze(-1)
    expected = expected + (x[user] * weight[task]).sum(-1) + bias[task, 0]
    leaves = [x, e, *net.parameters()]
    assert_same(net.of_pairs(x, e, user, task), expected, leaves)
    assert_same(net(x[user], e[task].expand(2, n, -1)), expected, leaves)
    grid = net.of_grid(net.user_side(x), e)
    torch.testing.assert_close(grid[task, user], expected, rtol=1e-4, atol=1e-5)
    cost = 0.1 * weight[task].square().sum(1).mean()
    assert_same(net.loss_of_pairs(x, e, user, task), ratio_loss(expected) + cost, leaves)


@torch.no_grad()
@pytest.mark.parametrize("linear", [None, 0.1])
def test_a_scaled_network_gives_the_scaled_log_ratios(linear: float | None) -> None:
    net, x, e = with_heads(0.1)
    if linear is None:
        net = RatioNet(x_dim=X_DIM, task_dim=e.shape[1], hidden=(9, 8, 7))
        draw_layers(net, torch.Generator().manual_seed(0))
    net.eval()
    before, seen = net.of_grid(net.user_side(x), e), net.seen(e).clone()
    net.scale(Platt(slope=2.5, offset=-0.3), e)
    torch.testing.assert_close(net.of_grid(net.user_side(x), e), 2.5 * before - 0.3)
    assert torch.equal(net.seen(e), seen)


def test_under_dropout_a_head_is_whole() -> None:
    net, x, e = with_heads(0.0)
    net.train()
    user, task = rows(USERS, 2, 40), rows(TASKS, 40)
    losses = []
    for loss in (
        lambda: net.loss_of_pairs(x, e, user, task),
        lambda: ratio_loss(net.of_pairs(x, e, user, task)),
    ):
        set_masks(net, MaskSource(7, CPU))
        losses.append(loss())
    assert_same(losses[0], losses[1], [e, *net.parameters()])

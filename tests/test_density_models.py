"""The conditional Gaussian and the conditional flow: what a density must be, and zuko's word."""

import math

import pytest
import torch
import zuko
from torch import Tensor, nn
from torch.distributions import AffineTransform, Independent, Normal, Transform

from pipeline.models.gaussian import LOG_VARIANCE, ConditionalGaussian
from pipeline.models.maf import ConditionalMaf, FlowNorm
from pipeline.models.masked import MaskedLinear, masked_net

Density = ConditionalGaussian | ConditionalMaf


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """In double precision, in which equality is tested."""
    return torch.randn(shape, generator=gen(seed), dtype=torch.float64)


def gaussian(width: int = 3, tasks: int = 4) -> ConditionalGaussian:
    net = ConditionalGaussian(x_dim=width, tasks=tasks, task_dim=5, hidden=(7, 6))
    net.draw_weights(gen())
    return net.double().eval()


def maf(width: int = 4, tasks: int = 3, hidden: int = 9, blocks: int = 5) -> ConditionalMaf:
    """A flow far from the identity, its BatchNorms settled on rows of their own."""
    net = ConditionalMaf(x_dim=width, tasks=tasks, blocks=blocks, hidden=hidden)
    net.draw_weights(gen())
    net.double()
    with torch.no_grad():
        net.b += 0.3 * normal(*net.b.shape, seed=1)
        for block in net.blocks:
            block.norm.gain += 0.1 * normal(width, seed=2)
            block.norm.shift += normal(width, seed=3)
    net.settle(2 * normal(300, width, seed=4) + 1, torch.arange(300) % tasks)
    return net


def test_output_i_of_a_masked_net_sees_exactly_the_inputs_before_i() -> None:
    net = masked_net(5, hidden=8)
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.1, 1, generator=gen())  # positive, so that no ReLU is off
    jacobian = torch.autograd.functional.jacobian(net, torch.rand(5, generator=gen()))
    assert (jacobian != 0).tolist() == torch.ones(5, 5).tril(-1).bool().tolist()
    assert [type(layer) for layer in net] == [MaskedLinear, nn.ReLU] * 3 + [MaskedLinear]


def test_a_masked_net_of_one_input_is_a_constant() -> None:
    net = masked_net(1, hidden=3)
    assert net(torch.tensor([[0.0], [5.0]])).unique().numel() == 1


@torch.no_grad()
def zuko_flow(ours: ConditionalMaf) -> zuko.flows.Flow:
    """The same flow out of zuko's masked networks and transforms, with our weights."""
    width = ours.config["x_dim"]
    adjacency = torch.ones(width, width).tril(-1).bool()
    transforms: list[nn.Module] = []
    for block in ours.blocks:
        nets = []
        for net in (block.mu, block.alpha):
            hidden = [layer.out_features for layer in net if isinstance(layer, MaskedLinear)][:-1]
            theirs = zuko.nn.MaskedMLP(adjacency, hidden).double()
            theirs.load_state_dict(net.state_dict(), strict=False)
            masks = [layer.mask for layer in theirs if isinstance(layer, zuko.nn.MaskedLinear)]
            own = [layer.mask for layer in net if isinstance(layer, MaskedLinear)]
            assert all(torch.equal(a, b.bool()) for a, b in zip(masks, own, strict=True))
            nets.append(theirs)

        def to_u(x: Tensor, mu: nn.Module = nets[0], alpha: nn.Module = nets[1]) -> Transform:
            affine = AffineTransform(-mu(x) * (-alpha(x)).exp(), (-alpha(x)).exp())
            return zuko.transforms.DependentTransform(affine, 1)

        transforms.append(zuko.transforms.AutoregressiveTransform(to_u, passes=width))
        transforms.append(zuko.transforms.PermutationTransform(torch.arange(width).flip(0)))
    base = zuko.distributions.DiagNormal(torch.zeros(width), torch.ones(width))
    return zuko.distributions.NormalizingFlow(zuko.transforms.ComposedTransform(*transforms), base)


def test_without_modulation_and_batchnorm_the_flow_is_zukos() -> None:
    ours = ConditionalMaf(x_dim=5, tasks=1, hidden=11)
    ours.draw_weights(gen())
    ours.double().eval()  # unsettled, a BatchNorm leaves everything as it is
    with torch.no_grad():
        for layer in ours.modules():
            if isinstance(layer, MaskedLinear):
                layer.weight *= 1.5  # far from the identity
        ours.s.fill_(20)  # tanh 20 = 1 in double precision
        ours.prior_mean.zero_()
    theirs = zuko_flow(ours)
    x = 2 * normal(50, 5)
    expected = theirs.log_prob(x)
    assert expected.std() > 1
    torch.testing.assert_close(ours(x, torch.zeros(50, dtype=torch.int64)), expected)


def test_the_log_determinant_is_that_of_autograds_jacobian() -> None:
    net = maf()
    for task in range(3):
        x, of = normal(4, seed=task), torch.tensor(task)
        u, log_determinant = net.encode(x, of)
        jacobian = torch.autograd.functional.jacobian(lambda x, of=of: net.encode(x, of)[0], x)
        torch.testing.assert_close(log_determinant, torch.linalg.slogdet(jacobian).logabsdet)
        prior = Independent(Normal(net.prior_mean[task], 1), 1)
        torch.testing.assert_close(net(x, of), prior.log_prob(u) + log_determinant)


@torch.no_grad()
def test_the_output_f_of_either_net_of_each_block_becomes_f_tanh_s_plus_tanh_b() -> None:
    net, x = maf(), normal(20, 4)
    net.s += normal(*net.s.shape, seed=8)
    task, expected = torch.full((20,), 2), x
    for n, block in enumerate(net.blocks):
        (s_mu, s_alpha), (b_mu, b_alpha) = (p[2, 2 * n : 2 * n + 2].tanh() for p in (net.s, net.b))
        mu = block.mu(expected) * s_mu + b_mu
        alpha = block.alpha(expected) * s_alpha + b_alpha
        expected = block.norm((expected - mu) * (-alpha).exp())[0].flip(-1)
    torch.testing.assert_close(net.encode(x, task)[0], expected)


def test_u_is_reversed_after_each_block() -> None:
    """With one block the last of u may see all of x, so the first of the output does."""
    net = maf(blocks=1)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: net.encode(x, torch.tensor(0))[0], normal(4)
    )
    assert (jacobian.flip(0).triu(1) == 0).all()
    assert (jacobian.flip(0).diagonal() > 0).all()


@pytest.mark.parametrize("net", [gaussian(2), maf(2, hidden=6)], ids=["gaussian", "maf"])
def test_the_density_integrates_to_one(net: Density) -> None:
    """In two dimensions, for every task: the midpoint rule in v, x = sinh v, |x| < 200."""
    side = torch.arange(-6, 6, 0.02, dtype=torch.float64) + 0.01
    v = torch.cartesian_prod(side, side)
    log_area = v.cosh().log().sum(-1) + 2 * math.log(0.02)
    with torch.no_grad():
        for task in range(net.config["tasks"]):
            total = (net(v.sinh(), torch.tensor(task)) + log_area).exp().sum()
            assert total.item() == pytest.approx(1, abs=1e-3)


def test_the_gaussian_is_its_closed_form() -> None:
    net, x, task = gaussian(), normal(10, 3), torch.arange(10) % 4
    mean, log_variance = net.moments()
    expected = Independent(Normal(mean[task], log_variance[task].mul(0.5).exp()), 1).log_prob(x)
    torch.testing.assert_close(net(x, task), expected)


def test_log_variances_stay_within_seven() -> None:
    net = gaussian()
    with torch.no_grad():
        net.log_variance.bias += torch.tensor([-100, 0, 100])
    _, log_variance = net.moments()
    assert log_variance[:, 0].unique().tolist() == [-LOG_VARIANCE]
    assert log_variance[:, 2].unique().tolist() == [LOG_VARIANCE]
    assert LOG_VARIANCE == 7


def test_batchnorm_takes_the_batch_in_training_and_the_population_in_eval() -> None:
    norm, x = FlowNorm(3).double(), 4 * normal(1000, 3) + 2
    y, log_determinant = norm.train()(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(3).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(3).double(), atol=1e-5, rtol=0)
    assert log_determinant.item() == pytest.approx(-3 * math.log(4), abs=0.2)
    norm.eval().settle(x)
    torch.testing.assert_close(norm(x), (y, log_determinant))
    few = norm(x[:2])[0]
    torch.testing.assert_close(few, y[:2])


def test_settled_statistics_are_those_of_the_whole_training_set() -> None:
    """Of every block, given that the blocks before it are settled: not of batches, nor of a mean
    over batches."""
    net = maf()
    x, task = normal(70_000, 4, seed=9) * 3 - 1, torch.arange(70_000) % 3
    net.settle(x, task)
    with torch.no_grad():
        for block, scale, bias in net._modulated(task):
            u, _ = block.made(x, scale, bias)
            torch.testing.assert_close(block.norm.mean, u.mean(0))
            torch.testing.assert_close(block.norm.variance, u.var(0, correction=0))
            x = block(x, scale, bias)[0].flip(-1)


def test_in_training_mode_a_batch_of_all_rows_has_the_settled_likelihood() -> None:
    net, x, task = maf(), normal(200, 4), torch.arange(200) % 3
    of_batch = net.train()(x, task)
    net.settle(x, task)
    torch.testing.assert_close(net(x, task), of_batch)


@pytest.mark.parametrize("net", [gaussian(), maf(3, 4)], ids=["gaussian", "maf"])
def test_tasks_and_users_broadcast_to_a_grid(net: Density) -> None:
    x = normal(6, 3)
    grid = net(x, torch.arange(4)[:, None])
    assert grid.shape == (4, 6)
    for task in range(4):
        torch.testing.assert_close(grid[task], net(x, torch.full((6,), task)))


@pytest.mark.parametrize("net", [gaussian(), maf(3, 4)], ids=["gaussian", "maf"])
def test_every_parameter_of_a_density_gets_a_gradient(net: Density) -> None:
    net.train()(normal(50, 3), torch.arange(50) % 4).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    net.eval()


def test_a_task_of_the_flow_has_twenty_numbers_and_the_paper_its_size() -> None:
    net = ConditionalMaf(x_dim=100, tasks=7)
    of_task = sum(p.numel() for p in (net.s, net.b))
    assert of_task == 7 * 20
    shared = sum(p.numel() for p in net.parameters()) - of_task
    assert 0.39e6 < shared < 0.41e6


def test_equal_seeds_draw_equal_weights() -> None:
    for made in (gaussian, maf):
        first, second = made().state_dict(), made().state_dict()
        assert all(torch.equal(first[name], second[name]) for name in first)

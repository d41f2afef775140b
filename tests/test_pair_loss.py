"""Equation 3 in one pass, there and back, against the loss of the networks' logits by autograd."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.models.ratio import PreEmbeddingNet, RatioNet, SeedRatios, TaskRatios
from pipeline.models.weights import draw_layers
from pipeline.steps import pair_loss as module
from pipeline.steps.dropout import MaskSource, set_masks
from pipeline.steps.gather import scatter_add
from pipeline.steps.pair_loss import ratio_loss

CPU = torch.device("cpu")
X_DIM, E_DIM, USERS, TASKS = 5, 3, 12, 6
KINDS = ["all tasks", "all tasks, frozen", "seed tasks", "one seed task"]


def made(kind: str, rates: tuple[float, float, float] = (0.5, 0.4, 0.2)) -> nn.Module:
    """A model in training mode, with weights large enough for every layer to matter."""
    gen = torch.Generator().manual_seed(0)
    x, e = torch.randn(USERS, X_DIM, generator=gen), torch.randn(TASKS, E_DIM, generator=gen)
    sizes = {"x_dim": X_DIM, "hidden": (9, 8, 7), "dropout": rates}
    if kind.startswith("all"):
        net: nn.Module = RatioNet(task_dim=E_DIM, **sizes)
        model: nn.Module = TaskRatios(net, x=x, e=e, freeze_e="frozen" in kind)
    else:
        net = PreEmbeddingNet(heads=1 if kind.startswith("one") else TASKS, **sizes)
        model = SeedRatios(net, x=x)
    draw_layers(net, gen)
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data *= 2
    return model.train()


def pairs(kind: str, n: int) -> tuple[Tensor, Tensor]:
    gen = torch.Generator().manual_seed(n)
    tasks = 1 if kind.startswith("one") else TASKS
    return torch.randint(USERS, (2, n), generator=gen), torch.randint(tasks, (n,), generator=gen)


def with_gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    learned = [p for p in model.parameters() if p.requires_grad]
    return [loss.detach(), *torch.autograd.grad(3 * loss, learned)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [3, 40])
def test_without_dropout_loss_and_gradients_are_those_of_the_logits(kind: str, n: int) -> None:
    """3 pairs are fewer than users and tasks, 40 are more: both ways to the first layer."""
    model = made(kind).eval()
    user, task = pairs(kind, n)
    torch.testing.assert_close(
        with_gradients(model, model.loss(user, task)),
        with_gradients(model, ratio_loss(model(user, task))),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [3, 40])
def test_under_dropout_they_are_the_same_with_the_same_masks(kind: str, n: int) -> None:
    model = made(kind)
    user, task = pairs(kind, n)
    results = []
    for way in (model.loss, lambda user, task: ratio_loss(model(user, task))):
        set_masks(model, MaskSource(7, CPU))
        results.append(with_gradients(model, way(user, task)))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_blocks_do_not_show(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 7 of the 80 pairs: one holds both sides, and the last is short."""
    model = made(kind).eval()
    user, task = pairs(kind, 40)
    whole = with_gradients(model, model.loss(user, task))
    monkeypatch.setattr(module, "BLOCK", 7)
    torch.testing.assert_close(
        with_gradients(model, model.loss(user, task)), whole, rtol=1e-5, atol=1e-6
    )


def test_in_expectation_over_masks_loss_and_gradients_are_those_of_torch_s_own_dropout() -> None:
    """A batch of 2,000 times the same pairs, many masks at once, within 4 standard errors."""
    copies, rounds = 2000, 12
    model = made("all tasks")
    user, task = pairs("all tasks", 8)
    user, task = user.repeat(1, copies), task.repeat(copies)
    *layers, last = [layer for layer in model.net.modules() if isinstance(layer, nn.Linear)]
    steps = [
        (layer, nn.ReLU(), nn.Dropout(r)) for layer, r in zip(layers, (0.5, 0.4, 0.2), strict=True)
    ]
    slow = nn.Sequential(*(part for step in steps for part in step), last)

    def textbook() -> Tensor:
        joined = torch.cat([model.x[user], model.e[task].expand(2, -1, -1)], -1)
        return ratio_loss(slow(joined).squeeze(-1))

    set_masks(model, MaskSource(0, CPU))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found, expected = (
            torch.stack([_flat(with_gradients(model, way())) for _ in range(rounds)]).double()
            for way in (lambda: model.loss(user, task), textbook)
        )
    error = ((found.var(0) + expected.var(0)) / rounds).sqrt()
    apart = (found.mean(0) - expected.mean(0)).abs()
    assert (apart <= 6 * error + 1e-6).all()
    assert float((apart / (error + 1e-12)).square().mean()) < 2
    assert float(error[0] / expected[:, 0].mean()) < 5e-3


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


class Operations(TorchDispatchMode):
    """Notes every operation of torch, and the elements that it writes anew."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.fresh = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        out = func(*args, **(kwargs or {}))
        self.names.append(func.overloadpacket.__name__)
        given = [
            a.untyped_storage() for a in (*args, *(kwargs or {}).values()) if isinstance(a, Tensor)
        ]
        known = {storage.data_ptr() for storage in given}
        if isinstance(out, Tensor) and out.untyped_storage().data_ptr() not in known:
            self.fresh += out.numel()
        return out


def test_a_step_takes_few_operations_and_writes_each_layer_once() -> None:
    """Guards the fast path: no dropout of torch's, no mask of floats, no copy of an activation.

    A hidden layer costs its values, its mask and its gradient; the first also the rows of tasks.
    """
    n, widths = 1000, (9, 8, 7)
    model = made("all tasks", (0.5, 0.5, 0.3))
    set_masks(model, MaskSource(0, CPU))
    user, task = pairs("all tasks", n)
    with Operations() as operations:
        model.loss(user, task).backward()
    slow = {"bernoulli_", "native_dropout", "index", "embedding_dense_backward"}
    assert not slow & {*operations.names}
    assert operations.names.count("mm") == 11  # 5 forwards, 6 backwards
    assert len(operations.names) < 160
    activations = 2 * n * sum(widths)
    assert operations.fresh < 3.6 * activations + 20 * n


@pytest.mark.parametrize("shape", [(40, 4), (1, 1), (0, 3)])
def test_rows_are_added_up_where_they_belong(shape: tuple[int, int]) -> None:
    gen = torch.Generator().manual_seed(0)
    rows = torch.randn(shape, generator=gen)
    index = torch.randint(7, shape[:1], generator=gen)
    expected = torch.zeros(7, shape[1]).index_add_(0, index, rows)
    torch.testing.assert_close(scatter_add(rows, index, 7), expected)


def test_logits_of_zero_lose_two_log_two() -> None:
    model = made("all tasks").eval()
    for parameter in model.parameters():
        parameter.data.zero_()
    assert float(model.loss(*pairs("all tasks", 9)).detach()) == pytest.approx(2 * math.log(2))

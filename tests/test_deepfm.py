"""The network against its textbook form; the negatives it learns from."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import nn

from pipeline.errors import PipelineError
from pipeline.models.deepfm import DeepFM
from pipeline.params import Features, load_params
from pipeline.steps.dropout import MaskSource, set_masks
from pipeline.steps.pair_loss import ratio_loss
from pipeline.training.contrast import ContrastedPairs, pair_auc
from pipeline.training.deepfm import (
    Interactions,
    needed,
    train_deepfm,
)
from pipeline.training.negatives import UnseenItems
from pipeline.training.session import Session
from tests.test_pair_loss import Operations

ROOT = Path(__file__).parents[1]
GENRES = torch.tensor([[1, 0, 0], [0.5, 0.5, 0], [0, 0, 0], [1 / 3, 1 / 3, 1 / 3]])


def network(sizes: tuple[int, ...] = (5, 3), dropout: float = 0.0) -> DeepFM:
    net = DeepFM(sizes=sizes, genres=GENRES, width=4, hidden=[8, 6], dropout=dropout)
    net.draw_weights(0.5, torch.Generator().manual_seed(0))
    return net


@torch.no_grad()
def textbook(net: DeepFM, codes: list[int], item: int) -> float:
    """DeepFM as its paper writes it, equations 1 to 4: one pair, a loop over its fields."""
    own = [i for i, share in enumerate(net.genres[item].tolist()) if share]
    genre = net.genre[own].mean(0) if own else torch.zeros(1 + 4)
    rows = [table[code] for table, code in zip(net.user_fields, codes, strict=True)]
    rows += [net.item_id[item], genre]
    first, fields = [row[0] for row in rows], [row[1:] for row in rows]
    fm = sum(first)
    for a in range(len(fields)):
        for b in range(a):
            fm = fm + fields[a].dot(fields[b])
    weight = torch.cat([net.user_layer.weight, net.item_layer.weight], 1)
    h = torch.relu(weight @ torch.cat(fields) + net.user_layer.bias)
    for layer in [layer for layer in net.rest if isinstance(layer, nn.Linear)][:-1]:
        h = torch.relu(layer.weight @ h + layer.bias)
    return float(fm + net.rest[-1].weight[0] @ h + net.rest[-1].bias[0])


@pytest.mark.parametrize("sizes", [(5,), (5, 3), (2, 5, 3, 4)])
def test_the_logits_are_those_of_the_textbook_network(sizes: tuple[int, ...]) -> None:
    net = network(sizes).eval()
    codes = torch.stack([torch.arange(6) % size for size in sizes], 1)
    user = torch.tensor([0, 5, 3, 1, 2])
    item = torch.tensor([[0, 1, 2, 3, 0], [3, 3, 1, 0, 2]])
    logits = net(codes, user, item)
    expected = [
        [textbook(net, codes[u].tolist(), i) for u, i in zip(user.tolist(), row, strict=True)]
        for row in item.tolist()
    ]
    torch.testing.assert_close(logits, torch.tensor(expected))


def test_every_parameter_gets_a_gradient() -> None:
    net = network(dropout=0.2)
    set_masks(net, MaskSource(0, torch.device("cpu")))
    codes = torch.tensor([[u % 5, u % 3] for u in range(15)])
    user = torch.arange(15).repeat(4)
    item = torch.arange(4).repeat_interleave(15)
    ratio_loss(net(codes, user, torch.stack([item, item.flip(0)]))).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


@pytest.mark.parametrize("sizes", [(5,), (5, 3)])
@pytest.mark.parametrize("n", [3, 40])  # fewer than there are users and items, and more
def test_the_loss_in_one_pass_is_that_of_the_logits_under_the_same_masks(
    sizes: tuple[int, ...], n: int
) -> None:
    net = network(sizes, dropout=0.2)
    gen = torch.Generator().manual_seed(n)
    codes = torch.stack([torch.arange(5) % size for size in sizes], 1)
    user, item = torch.randint(5, (n,), generator=gen), torch.randint(4, (2, n), generator=gen)
    found = []
    for way in (net.loss, lambda *pairs: ratio_loss(net(*pairs))):
        set_masks(net, MaskSource(7, torch.device("cpu")))
        loss = way(codes, user, item)
        found.append([loss.detach(), *torch.autograd.grad(3 * loss, list(net.parameters()))])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


def test_a_step_writes_each_layer_once() -> None:
    """Guards the fast path: no dropout of torch's, no table of the pairs' rows kept for later."""
    net, n = network((5,), dropout=0.2), 20_000
    set_masks(net, MaskSource(0, torch.device("cpu")))
    user, item = torch.randint(5, (n,)), torch.randint(4, (2, n))
    with Operations() as operations:
        net.loss(torch.arange(5)[:, None], user, item).backward()
    assert not {"bernoulli_", "native_dropout", "index_add_"} & {*operations.names}
    assert operations.fresh < 160 * n  # 248 by autograd from the logits, of layers of 8 and 6


def test_of_many_users_a_step_looks_at_those_of_its_batch_alone() -> None:
    """The same logits and gradients, from as many rows as the batch has users."""
    net, codes = network((9,)), torch.arange(9)[:, None]
    user, item = torch.tensor([0, 2, 2, 5, 5, 8]), torch.randint(4, (2, 6))
    some, row = needed(codes, user)
    assert some[:, 0].tolist() == [0, 2, 5, 8]
    assert some[row, 0].tolist() == user.tolist()
    losses = [ratio_loss(net(codes, user, item)), ratio_loss(net(some, row, item))]
    first, second = (torch.autograd.grad(loss, list(net.parameters())) for loss in losses)
    torch.testing.assert_close(first, second)
    assert needed(codes[:3], user)[1] is user  # fewer users than pairs: all of them


def test_items_need_no_genres() -> None:
    net = DeepFM(sizes=[3], genres=torch.zeros(2, 0), width=4, hidden=[8], dropout=0.0)
    net.draw_weights(0.5, torch.Generator().manual_seed(0))
    assert net(torch.tensor([[0]]), torch.tensor([0, 0]), torch.tensor([0, 1])).isfinite().all()


def test_an_unseen_code_stands_for_the_mean_of_its_field() -> None:
    net = network()
    mean = torch.stack([table.mean(0) for table in net.user_fields])
    embedded = net.embed_newcomers(torch.tensor([[2, 3], [5, 1]]), mean)
    torch.testing.assert_close(embedded[0, 0], net.user_fields[0][2])
    torch.testing.assert_close(embedded[0, 1], net.user_fields[1].mean(0))
    torch.testing.assert_close(embedded[1, 0], net.user_fields[0].mean(0))
    torch.testing.assert_close(embedded[1, 1], net.user_fields[1][1])


def unseen_items(seen: list[set[int]], items: int) -> UnseenItems:
    user = torch.tensor([u for u, s in enumerate(seen) for _ in s], dtype=torch.int64)
    item = torch.tensor([i for s in seen for i in sorted(s)], dtype=torch.int64)
    return UnseenItems.of(user, item, users=len(seen), items=items)


@given(st.lists(st.sets(st.integers(0, 5), max_size=5), min_size=1, max_size=4))
def test_negatives_are_all_the_unseen_items_and_no_other(seen: list[set[int]]) -> None:
    unseen = unseen_items(seen, items=6)
    for u, s in enumerate(seen):
        user = torch.full((400,), u)
        drawn = unseen.draw(user, torch.Generator().manual_seed(0))
        assert set(drawn.tolist()) == set(range(6)) - s
        assert unseen.count(user)[0] == 6 - len(s)


def test_negatives_are_uniform() -> None:
    seen = [{0, 3, 4, 9}, set(), {1}]
    drawn = unseen_items(seen, items=10).draw(
        torch.zeros(60_000, dtype=torch.int64), torch.Generator().manual_seed(0)
    )
    count = torch.bincount(drawn, minlength=10).double()
    expected = torch.tensor([0, 1, 1, 0, 0, 1, 1, 1, 1, 0]) * 10_000.0
    assert ((count - expected).abs() < 5 * 100).all()  # 5 standard deviations
    assert (count[expected == 0] == 0).all()


def test_the_pair_auc_is_that_of_scikit_learn_with_ties() -> None:
    logits = torch.randint(0, 9, (2, 300), generator=torch.Generator().manual_seed(0)).float()
    logits[0] += 1
    truth = [1] * 300 + [0] * 300
    assert pair_auc(logits) == pytest.approx(roc_auc_score(truth, logits.flatten()))


def planted(users: int = 60, items: int = 40) -> Interactions:
    """Even users see most even items and some odd ones, odd users the other way round."""
    gen = torch.Generator().manual_seed(0)
    alike = (torch.arange(users)[:, None] + torch.arange(items)) % 2 == 0
    chance = torch.where(alike, 0.8, 0.1)
    user, item = (torch.rand(users, items, generator=gen) < chance).nonzero().unbind(1)
    return Interactions(user, item, torch.arange(users)[:, None], torch.ones(items, 1))


def wanted(**changed: object) -> Features:
    """The default params of a small network, with some of them changed."""
    features = load_params(ROOT / "params.yaml", "features").features
    small = {"f_dim": 8, "hidden": [8], "lr": 0.02, "batch_size": 64, "max_epochs": 3}
    return features.model_copy(update=small | changed)


def train(data: Interactions, seed: int = 0, **changed: object) -> DeepFM:
    return train_deepfm(data, wanted(**changed), seed=seed, session=Session())[0]


def test_a_planted_taste_is_learned_and_the_best_epoch_kept() -> None:
    data, params, rows = planted(), wanted(max_epochs=30, patience=3), []
    net, history = train_deepfm(data, params, seed=0, session=Session(report=rows.append))
    assert rows == history
    assert [*history[0]] == ["epoch", "train_loss", "valid_loss", "pair_auc"]
    best = min(row["valid_loss"] for row in history)
    assert best < history[-1]["valid_loss"]  # it went on until the loss rose
    pairs = ContrastedPairs.of(data.exposed, params.stop_share, torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = net(data.codes, *pairs.stop)
    assert float(ratio_loss(logits)) == pytest.approx(best)
    assert pair_auc(logits) > 0.85
    own = net.user_fields[0].detach()[:, 1:]
    assert nn.functional.cosine_similarity(own[::2].mean(0), own[1::2].mean(0), dim=0) < -0.5


def test_training_is_a_function_of_its_seed() -> None:
    data = planted()
    once, again, other = (train(data, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert not torch.equal(once["item_id"], other["item_id"])


def test_an_epoch_contrasts_every_pair_once_but_those_kept_for_early_stopping() -> None:
    data = planted()
    pairs = ContrastedPairs.of(data.exposed, 0.25, torch.Generator().manual_seed(0))
    visible = (data.user * 40 + data.item).tolist()
    for _ in range(2):
        batches = [(u * 40 + i).tolist() for u, i in pairs.epoch(batch_size=100)]
        positive = [pair for batch in batches for pair in batch[0]]
        negative = [pair for batch in batches for pair in batch[1]]
        kept = (pairs.stop[0] * 40 + pairs.stop[1][0]).tolist()
        assert len(kept) == round(len(visible) / 4)
        assert sorted(positive + kept) == visible
        assert not set(negative) & set(visible)


def test_a_loss_that_is_not_finite_says_what_to_change() -> None:
    with pytest.raises(PipelineError, match=r"epoch \d+: .*lr 1e\+30, batch_size 64"):
        train(planted(), lr=1e30)

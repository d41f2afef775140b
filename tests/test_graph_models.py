"""TransE, TransH and KTUP against their papers' formulas, a pair at a time; what they learn."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.errors import PipelineError
from pipeline.link_prediction import by_relation, filtered_ranks, mean_reciprocal_rank
from pipeline.models.graph import TransE, TransH
from pipeline.models.ktup import KTUP
from pipeline.params import Graph, load_params
from pipeline.training.contrast import Exposed
from pipeline.training.graph import Corruption, Triples, margin_loss, train_translation
from pipeline.training.ktup import preference_loss, train_ktup
from pipeline.training.session import Session

ROOT = Path(__file__).parents[1]


def drawn(model: TransE | KTUP, seed: int = 0) -> TransE | KTUP:
    model.draw_weights(torch.Generator().manual_seed(seed))
    return model


def transh(entities: int = 6, relations: int = 3, dim: int = 5) -> TransH:
    model = drawn(TransH(entities=entities, relations=relations, dim=dim))
    assert isinstance(model, TransH)
    return model


def ktup() -> KTUP:
    """4 users and 5 items, of which 0, 2 and 3 have the entities 1, 4 and 1."""
    model = drawn(KTUP(transh(), of_item=torch.tensor([1, -1, 4, 1, -1]), users=4))
    assert isinstance(model, KTUP)
    return model


TRIPLES = torch.tensor([[0, 1, 2, 5, 3], [0, 2, 1, 1, 0], [4, 1, 3, 0, 5]])


@pytest.mark.parametrize("norm", [1, 2])
@torch.no_grad()
def test_the_distance_of_transe_is_that_of_its_paper(norm: int) -> None:
    model = drawn(TransE(entities=6, relations=3, dim=5, norm=norm))
    expected = [
        sum(
            abs(x) ** norm for x in (model.entity[h] + model.relation[r] - model.entity[t]).tolist()
        )
        ** (1 / norm)
        for h, r, t in TRIPLES.T.tolist()
    ]
    torch.testing.assert_close(model(TRIPLES), torch.tensor(expected))


@torch.no_grad()
def test_the_distance_of_transh_is_that_of_its_paper() -> None:
    model = transh()
    expected = []
    for h, r, t in TRIPLES.T.tolist():
        head, tail, w = model.entity[h], model.entity[t], model.normal[r]
        gap = (head - w.dot(head) * w) + model.relation[r] - (tail - w.dot(tail) * w)
        expected.append(gap.dot(gap))
    torch.testing.assert_close(model(TRIPLES), torch.stack(expected))


@torch.no_grad()
def test_the_distance_of_ktup_is_that_of_its_paper() -> None:
    model = ktup()
    user, item = torch.tensor([0, 3, 1]), torch.tensor([[0, 1, 2], [4, 3, 3]])
    expected = [
        [slow_ktup(model, u, i) for u, i in zip(user.tolist(), row, strict=True)]
        for row in item.tolist()
    ]
    torch.testing.assert_close(model(user, item), torch.tensor(expected))


def slow_ktup(model: KTUP, u: int, i: int) -> float:
    """The distance of one user and one item, preference by preference."""
    user, item, entity = model.user[u], model.item[i].clone(), int(model.of_item[i])
    if entity >= 0:
        item += model.graph.entity[entity]
    preferences = model.preference + model.graph.relation
    weight = [math.exp((user + item).dot(p)) for p in preferences]
    share = [w / sum(weight) for w in weight]
    p = sum(s * one for s, one in zip(share, preferences, strict=True))
    normals = model.normal + model.graph.normal
    w = sum(s * one for s, one in zip(share, normals, strict=True))
    w = w / w.norm()
    gap = (user - w.dot(user) * w) + p - (item - w.dot(item) * w)
    return float(gap.dot(gap))


def test_the_losses_are_those_of_the_papers() -> None:
    near, far = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([1.5, 4.0, 0.5])
    assert float(margin_loss(near, far, 1.0)) == pytest.approx((0.5 + 0 + 1) / 3)
    bpr = [-math.log(1 / (1 + math.exp(-(f - n)))) for n, f in zip(near, far, strict=True)]
    assert float(preference_loss(torch.stack([near, far]))) == pytest.approx(sum(bpr) / 3)


def test_constraints_cost_what_exceeds_them() -> None:
    model = transh(entities=2, relations=2, dim=3)
    with torch.no_grad():
        model.entity.copy_(torch.tensor([[2.0, 0, 0], [0.5, 0, 0]]))  # |2|^2 - 1 = 3, and within
        model.normal.copy_(torch.tensor([[1.0, 0, 0], [1.0, 0, 0]]))
        model.relation.copy_(torch.tensor([[3.0, 4.0, 0], [0, 2.0, 0]]))  # cosine .6, and 0
    assert float(model.penalty().detach()) == pytest.approx(3 + 0.6**2 - 1e-6)


def test_a_constrained_model_keeps_its_directions() -> None:
    transe, hyperplanes = drawn(TransE(entities=4, relations=2, dim=3)), transh()
    for model, table in ((transe, transe.entity), (hyperplanes, hyperplanes.normal)):
        before = table.detach().clone()
        with torch.no_grad():
            table.mul_(3)
        model.constrain()
        torch.testing.assert_close(table.detach(), before)
    torch.testing.assert_close(transe.entity.detach().norm(dim=1), torch.ones(4))


@pytest.mark.parametrize("kind", ["transe", "transh", "ktup"])
def test_every_parameter_gets_a_gradient(kind: str) -> None:
    model = {"transe": lambda: drawn(TransE(entities=6, relations=3, dim=5)), "transh": transh}
    some = torch.cat([TRIPLES, TRIPLES.flip(1)], 1)
    if kind == "ktup":
        net = ktup()
        user, item = torch.arange(4).repeat_interleave(5), torch.arange(5).repeat(4)
        loss = net(user, item).sum() + net.graph(some).sum()
    else:
        net = model[kind]()
        loss = net(some).sum()
    loss.backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def graph_of(triples: Tensor) -> Triples:
    entities, relations = int(triples[[0, 2]].max()) + 1, int(triples[1].max()) + 1
    return Triples(triples, triples[:, :4], triples, entities, relations)


def test_a_corrupted_triple_has_another_end_and_bernoulli_chooses_by_the_relation() -> None:
    """Relation 0: one head, four tails. Relation 1: the other way round. Relation 2: one to one."""
    triples = torch.tensor(
        [
            [0, 0, 0, 0, 1, 2, 3, 4, 1, 2],
            [0, 0, 0, 0, 1, 1, 1, 1, 2, 2],
            [1, 2, 3, 4, 0, 0, 0, 0, 3, 4],
        ]
    )
    gen = torch.Generator().manual_seed(0)
    many = triples.repeat(1, 4000)
    for bernoulli, chance in ((True, [0.8, 0.2, 0.5]), (False, [0.5, 0.5, 0.5])):
        corruption = Corruption.of(graph_of(triples), bernoulli=bernoulli)
        torch.testing.assert_close(corruption.head_chance, torch.tensor(chance))
        drawn = corruption.draw(many, gen)
        assert (drawn[1] == many[1]).all()
        changed = drawn != many
        assert not (changed[0] & changed[2]).any()
        for relation, expected in enumerate(chance):
            of_relation = changed[:, many[1] == relation]
            heads = of_relation[0].sum() / (of_relation[0] | of_relation[2]).sum()
            assert float(heads) == pytest.approx(expected, abs=0.02)
        new = torch.where(changed[0], drawn[0], drawn[2])[changed[0] | changed[2]]
        assert set(new.tolist()) == set(range(5))


@torch.no_grad()
def slow_ranks(model: TransE, triples: Tensor, known: Tensor) -> list[list[float]]:
    """Filtered ranks by asking for the distance of one candidate after another."""
    facts = {tuple(one) for one in known.T.tolist()}
    ranks: list[list[float]] = []
    for end in (0, 2):
        ranks.append([])
        for one in triples.T.tolist():
            true = float(model(torch.tensor(one)[:, None]))
            rank = 1.0
            for candidate in range(len(model.entity)):
                other = [*one]
                other[end] = candidate
                if tuple(other) in facts:
                    continue
                distance = float(model(torch.tensor(other)[:, None]))
                rank += (distance < true) + 0.5 * (distance == true)
            ranks[-1].append(rank)
    return ranks


@pytest.mark.parametrize("kind", ["transe-1", "transe-2", "transh"])
def test_ranks_are_those_of_a_search_through_all_candidates(kind: str) -> None:
    gen = torch.Generator().manual_seed(1)
    known = torch.stack([torch.randint(n, (60,), generator=gen) for n in (12, 3, 12)])
    known = known.unique(dim=1)
    size = {"entities": 12, "relations": 3, "dim": 4}
    model = drawn(TransH(**size) if kind == "transh" else TransE(**size, norm=int(kind[-1])))
    assert isinstance(model, TransE)
    wanted = known[:, ::3]
    ranks = filtered_ranks(model, wanted, known)
    torch.testing.assert_close(ranks, torch.tensor(slow_ranks(model, wanted, known)))
    assert ranks.max() > 1


def test_ties_count_half() -> None:
    model = TransE(entities=5, relations=1, dim=3)  # all vectors are 0
    one = torch.tensor([[0], [0], [1]])
    known = torch.tensor([[0, 0], [0, 0], [1, 2]])
    ranks = filtered_ranks(model, one, known)
    # Heads: 4 others as near. Tails: 3, as (0, 0, 2) is known to be true.
    assert ranks.tolist() == [[3.0], [2.5]]


def test_links_are_told_for_all_triples_and_for_each_relation_that_has_one() -> None:
    ranks = torch.tensor([[1.0, 2.0, 20.0], [4.0, 10.5, 10.0]])
    rows = by_relation(ranks, torch.tensor([2, 0, 2]), ["by", "in", "to"])
    assert [(row["relation"], row["triples"]) for row in rows] == [
        ("(all)", 3),
        ("by", 1),
        ("to", 2),
    ]
    everything = 1 + 1 / 2 + 1 / 20 + 1 / 4 + 1 / 10.5 + 1 / 10
    of_to = 1 + 1 / 20 + 1 / 4 + 1 / 10
    assert [row["mrr"] for row in rows] == pytest.approx(
        [everything / 6, (1 / 2 + 1 / 10.5) / 2, of_to / 4], abs=1e-6
    )
    assert [row["hits10"] for row in rows] == pytest.approx([4 / 6, 1 / 2, 3 / 4], abs=1e-6)


def classes(items: int = 60, relations: int = 4) -> tuple[Triples, Tensor]:
    """Items of four classes, each with its own tail under every relation; 20 triples to test on."""
    item = torch.arange(items).repeat_interleave(relations)
    relation = torch.arange(relations).repeat(items)
    triples = torch.stack([item, relation, items + 4 * relation + item % 4])
    order = torch.randperm(triples.shape[1], generator=torch.Generator().manual_seed(0))
    triples = triples[:, order]
    stop, test, learn = triples.split([20, 20, triples.shape[1] - 40], 1)
    return Triples(learn, stop, triples, items + 4 * relations, relations), test


def wanted(**changed: object) -> Graph:
    graph = load_params(ROOT / "params.yaml", "graph").graph
    small = {"dim": 8, "norm": 2, "batch_size": 16, "lr": 0.01, "max_epochs": 60, "patience": 60}
    return graph.model_copy(update=small | changed)


@pytest.mark.parametrize(("kind", "floor"), [("transe", 0.7), ("transh", 0.4)])
def test_planted_classes_are_learned_and_the_best_epoch_kept(kind: str, floor: float) -> None:
    data, test = classes()
    rows: list[dict[str, float]] = []
    model, history = train_translation(
        data, wanted(model=kind), seed=0, session=Session(report=rows.append)
    )
    assert rows == history
    assert [*history[0]] == ["epoch", "train_loss", "valid_loss"]
    untrained = drawn(TransE(entities=data.entities, relations=data.relations, dim=8))
    assert isinstance(untrained, TransE)
    assert mean_reciprocal_rank(untrained, test, data.known) < 0.15
    assert mean_reciprocal_rank(model, test, data.known) > floor
    best = min(row["valid_loss"] for row in history)
    assert 1 - mean_reciprocal_rank(model, data.stop, data.known) == pytest.approx(best)


@pytest.mark.parametrize("kind", ["transe", "transh"])
def test_training_is_a_function_of_its_seed(kind: str) -> None:
    data, _ = classes()
    few = wanted(model=kind, max_epochs=2)
    once, again, other = (
        train_translation(data, few, seed=seed, session=Session())[0].entity.detach()
        for seed in (0, 0, 1)
    )
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_a_loss_that_is_not_finite_says_what_to_change() -> None:
    data, _ = classes()
    with pytest.raises(PipelineError, match="Lower the lr"):
        train_translation(data, wanted(lr=1e30), seed=0, session=Session())


def tastes(users: int = 40, items: int = 30) -> tuple[Triples, Exposed, Tensor]:
    """Items of two kinds, as the graph tells; even users see the one kind, odd ones the other.

    Entities are the items, then the kinds; the last two items have no entity.
    """
    item = torch.arange(items - 2)
    triples = torch.stack([item, torch.zeros_like(item), items + item % 2])
    gen = torch.Generator().manual_seed(0)
    alike = (torch.arange(users)[:, None] + torch.arange(items)) % 2 == 0
    seen = torch.rand(users, items, generator=gen) < torch.where(alike, 0.7, 0.1)
    user, of_user = seen.nonzero().unbind(1)
    exposures = Exposed(user, of_user, users, items)
    of_item = torch.cat([item, torch.tensor([-1, -1])])
    return Triples(triples[:, 4:], triples[:, :4], triples, items + 2, 1), exposures, of_item


def test_ktup_learns_tastes_and_the_graph_together() -> None:
    triples, exposures, of_item = tastes()
    params = wanted(model="ktup", batch_size=64, max_epochs=30, lr=0.02)
    rows: list[dict[str, float]] = []
    model, history = train_ktup(
        triples, exposures, of_item, params, seed=0, session=Session(report=rows.append)
    )
    assert rows == history
    assert [*history[0]] == ["epoch", "train_loss", "valid_loss", "pair_auc"]
    best = min(history, key=lambda row: row["valid_loss"])
    assert best["pair_auc"] > 0.75
    with torch.no_grad():
        x = torch.nn.functional.normalize(model.items(), dim=1)
        near, far = model.graph(torch.stack([triples.learn, swapped(triples.learn)], 1))
    assert (near < far).float().mean() > 0.85
    similar = x @ x.T
    same = (torch.arange(30)[:, None] + torch.arange(30)) % 2 == 0
    assert similar[same].mean() > similar[~same].mean() + 0.2


def swapped(triples: Tensor) -> Tensor:
    """The triples of `tastes` with the other kind."""
    return torch.stack([triples[0], triples[1], 61 - triples[2]])


def test_ktup_is_a_function_of_its_seed_and_every_step_has_triples() -> None:
    triples, exposures, of_item = tastes()
    few = wanted(model="ktup", batch_size=16, max_epochs=2)  # more steps than triples
    once, again, other = (
        train_ktup(triples, exposures, of_item, few, seed=seed, session=Session())
        for seed in (0, 0, 1)
    )
    assert torch.equal(once[0].items(), again[0].items())
    assert once[1] == again[1]
    assert not torch.equal(once[0].items(), other[0].items())
    assert all(math.isfinite(row["train_loss"]) for row in once[1])

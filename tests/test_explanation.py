"""A score taken apart: what adds up, and what it is put down to."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from pipeline.by_hand.explanation import RIDGE, Explainer
from pipeline.models.ratio import RatioNet

USERS, ITEMS, TASKS = 60, 12, 8


def made(seed: int = 0, *, linear: bool = False) -> Explainer:
    """Random exposures and network; `linear` in which x follows from the exposures alone."""
    gen = np.random.default_rng(seed)
    met = (gen.random((USERS, ITEMS)) < gen.uniform(0.1, 0.9, ITEMS)).astype(float)
    met[:, 0] = 1  # so that everybody has met something
    x = gen.standard_normal((USERS, 5))
    if linear:
        x = met / np.sqrt(met.sum(1, keepdims=True)) @ gen.standard_normal((ITEMS, 5)) * 3
    net = RatioNet(x_dim=5, task_dim=3, dropout=[0.1, 0.1, 0.1])
    torch_gen = torch.Generator().manual_seed(seed)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.4, generator=torch_gen)
    e = torch.from_numpy(gen.standard_normal((TASKS, 3)))
    return Explainer.of(net, torch.from_numpy(x), e, csr_array(met), np.arange(TASKS) + 2)


def test_contributions_add_up_to_the_score() -> None:
    explainer = made()
    for user, task in ((0, 0), (7, 3), (59, 7)):
        found = explainer.explain(user, task)
        with torch.no_grad():
            x, e = explainer.x[user], explainer.e[task]
            assert found.score == pytest.approx(float(explainer.net(x, e)), abs=1e-12)
            mean = explainer.x.mean(0)
            assert found.average == pytest.approx(float(explainer.net(mean, e)), abs=1e-12)
        total = found.average + found.contribution.sum() + found.rest
        assert total == pytest.approx(found.score, abs=1e-12)
        for n in (0, 3, 50):
            rows = found.table(n).to_pydict()
            assert sum(rows["contribution"]) == pytest.approx(found.score, abs=1e-12)


@pytest.mark.parametrize(("users", "items"), [(7, 5), (6, 3)])
def test_where_all_have_met_the_same_exposures_say_nothing(users: int, items: int) -> None:
    plain = made()
    x, met = plain.x[:users], csr_array(np.ones((users, items)))
    found = Explainer.of(plain.net, x, plain.e[:2], met, np.arange(2)).explain(0, 0)
    np.testing.assert_allclose(found.contribution, 0, atol=1e-9)
    assert found.average + found.rest == pytest.approx(found.score)


def test_the_mean_gradient_times_the_difference_is_what_the_score_changes_by() -> None:
    """Completeness of integrated gradients, which the rest of x would otherwise hide."""
    explainer = made()
    for user in range(0, USERS, 7):
        start, end = explainer.x.mean(0), explainer.x[user]
        slope = explainer._mean_gradient(start, end, 1)
        with torch.no_grad():
            low, high = explainer.net(torch.stack((start, end)), explainer.e[1].expand(2, -1))
        assert float(slope @ (end - start)) == pytest.approx(float(high - low), abs=2e-3)


def test_the_weights_are_those_of_ridge_regression() -> None:
    explainer = made()
    rows = explainer.weighted.toarray() - explainer.weighted.toarray().mean(0)
    target = np.random.default_rng(1).standard_normal(USERS)
    ridge = RIDGE * (rows**2).sum(1).mean()
    expected = np.linalg.solve(rows.T @ rows + ridge * np.eye(ITEMS), rows.T @ target)
    np.testing.assert_allclose(explainer._weights(target), expected, atol=1e-4)


def test_where_x_follows_from_exposures_little_is_left_to_the_rest() -> None:
    left = []
    for linear in (True, False):
        explainer = made(linear=linear)
        found = [explainer.explain(user, 2) for user in range(0, USERS, 6)]
        change = [abs(one.score - one.average) for one in found]
        left.append(np.mean([abs(one.rest) for one in found]) / np.mean(change))
    assert left[0] < 0.4
    assert left[0] < left[1]


def test_an_item_met_and_one_not_met_speak_in_opposite_ways() -> None:
    explainer = made(linear=True)
    met = explainer.met.toarray()[:, 5] > 0
    found = {bool(met[user]): explainer.explain(user, 2) for user in (met.argmax(), met.argmin())}
    for has_met, one in found.items():
        assert one.met[5] == has_met
    centred = explainer.weighted.toarray()[:, 5] - explainer.usual[5]
    assert (centred[met] > 0).all()
    assert (centred[~met] < 0).all()
    assert found[True].contribution[5] * found[False].contribution[5] < 0


def test_a_contribution_is_the_item_s_weight_times_what_is_unusual_about_having_met_it() -> None:
    explainer, user, task = made(), 7, 3
    centred = explainer.weighted.toarray() - explainer.usual
    average = explainer.x.mean(0)
    slope = explainer._mean_gradient(average, explainer.x[user], task)
    target = ((explainer.x - average) @ slope).numpy()
    ridge = RIDGE * (centred**2).sum(1).mean()
    weight = np.linalg.solve(centred.T @ centred + ridge * np.eye(ITEMS), centred.T @ target)
    found = explainer.explain(user, task)
    np.testing.assert_allclose(found.contribution, centred[user] * weight, atol=1e-4)


def test_heads_have_no_part_in_the_likeness() -> None:
    plain, gen = made(), np.random.default_rng(3)
    net = RatioNet(x_dim=5, task_dim=3 + 6, dropout=[0.1, 0.1, 0.1], linear=0.0)
    net.load_state_dict(plain.net.state_dict())
    heads = torch.from_numpy(10 * gen.standard_normal((TASKS, 6)))
    e = torch.cat([plain.e, heads], dim=1)
    explainer = Explainer.of(net, plain.x, e, plain.met, plain.item)
    likeness = explainer.explain(0, 3).likeness
    np.testing.assert_allclose(likeness, plain.explain(0, 3).likeness, atol=1e-12)
    assert explainer.explain(0, 3).score != plain.explain(0, 3).score


def test_likeness_is_the_cosine_of_centred_embeddings() -> None:
    explainer = made()
    likeness = explainer.explain(0, 3).likeness
    centred = (explainer.e - explainer.e.mean(0)).numpy()
    expected = [a @ centred[3] / np.linalg.norm(a) / np.linalg.norm(centred[3]) for a in centred]
    np.testing.assert_allclose(likeness[2 : 2 + TASKS], expected, atol=1e-12)
    assert np.isnan(likeness[[0, 1, 10, 11]]).all()


def test_the_strongest_are_named_and_the_others_summed() -> None:
    found = made().explain(3, 4)
    rows = found.table(2).to_pylist()
    largest = np.argsort(found.contribution)
    assert [row["item"] for row in rows[1:5]] == [*largest[::-1][:2], *largest[:2][::-1]]
    assert [row["part"] for row in rows[1:5]] == [
        "met" if found.met[row["item"]] else "not met" for row in rows[1:5]
    ]
    assert rows[0]["part"] == "average user"
    assert [row["part"] for row in rows[5:]] == [
        "other items met",
        "other items not met",
        "rest of x",
    ]
    assert [row["likeness"] is None for row in rows[1:5]] == [
        bool(np.isnan(found.likeness[row["item"]])) for row in rows[1:5]
    ]
    assert len(found.table(50)) == ITEMS + 4

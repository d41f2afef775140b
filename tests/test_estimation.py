"""Algorithm 1: its loss, its base distribution, who is shown to it, and what it asks."""

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline import estimation
from pipeline.conditional import train_conditional
from pipeline.errors import PipelineError
from pipeline.estimation import (
    CHANCE,
    PLATEAUS,
    Estimation,
    estimate_ratio,
    make_estimation,
    pair_losses,
    ratio_loss,
)
from pipeline.examples import Examples
from pipeline.pairs import Pairs
from pipeline.sections import Base, Schedule, Visible
from pipeline.steps.dropout import MaskSource
from pipeline.steps.sampler import PairSampler
from pipeline.training.history import PLATEAU, Row, rested_at_chance
from pipeline.training.session import Session
from tests.worlds import default_params, small_world

CPU = torch.device("cpu")
BASES = get_args(Base)


def test_the_loss_is_that_of_logistic_regression_on_the_sign() -> None:
    logits = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    chance = torch.sigmoid(logits)
    expected = -torch.log(chance[0]).mean() - torch.log(1 - chance[1]).mean()
    torch.testing.assert_close(ratio_loss(logits), expected)
    assert float(ratio_loss(torch.zeros(2, 5))) == pytest.approx(2 * math.log(2))
    assert pytest.approx(2 * math.log(2)) == CHANCE


def test_the_loss_of_large_logits_is_finite() -> None:
    wrong = torch.tensor([[-1e4], [1e4]])
    assert float(ratio_loss(wrong)) == 2e4
    assert float(ratio_loss(-wrong)) == 0


def test_ratios_side_by_side_have_each_its_own_loss() -> None:
    logits = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0))
    each = torch.stack([ratio_loss(logits[:, :, m]) for m in range(3)])
    torch.testing.assert_close(ratio_loss(logits), each)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6))
def test_the_loss_is_stationary_and_lowest_at_the_log_ratio(counts: list[tuple[int, int]]) -> None:
    """Users of each kind are drawn so often from q and from p: the best f is log q/p, not p/q."""
    q, p = (torch.tensor(column) for column in zip(*counts, strict=True))
    n = int(q.sum() * p.sum())
    from_q, from_p = (
        torch.arange(len(c)).repeat_interleave(c * (n // int(c.sum()))) for c in (q, p)
    )
    kinds = torch.stack([from_q, from_p])
    truth = ((q / q.sum()) / (p / p.sum())).log().requires_grad_()
    loss = ratio_loss(truth[kinds])
    (gradient,) = torch.autograd.grad(loss, truth)
    torch.testing.assert_close(gradient, torch.zeros(len(q)), atol=1e-5, rtol=0)
    for step in (-0.5, 0.5):
        assert ratio_loss(truth[kinds] + step) > loss


def tables(exposed: list[tuple[int, int]], users: int, tasks: int) -> Examples:
    """All users but the last train; the last one validates, by an exposure to task 0."""
    pairs = sorted({*exposed, (users - 1, 0)})
    user, task = (np.array(column) for column in zip(*pairs, strict=True))
    return Examples(
        np.zeros((users, 1), np.float32),
        Pairs(user, task, np.zeros(len(user), bool)),
        train=np.arange(users - 1),
        valid=np.array([users - 1]),
        tasks=tasks,
    )


def shares(sampler: PairSampler, users: int, tasks: int) -> tuple[np.ndarray, ...]:
    """q_t (T, U) and m_t (T,) of the positives, and p (U,) of the base."""
    counts = np.zeros((tasks, users))
    np.add.at(counts, (sampler.task.numpy(), sampler.user.numpy()), 1)
    m = counts.sum(1) / counts.sum()
    q = counts / counts.sum(1, keepdims=True)
    return q, m, np.bincount(sampler.base.numpy(), minlength=users) / len(sampler.base)


def expected_kl(q: np.ndarray, m: np.ndarray, p: np.ndarray) -> float:
    """E_t KL(q_t || p) in nats."""
    ratio = np.log(q, where=q > 0, out=np.zeros_like(q)) - np.log(p)
    return float(m @ np.where(q > 0, q * ratio, 0).sum(1))


@given(
    st.sets(st.tuples(st.integers(0, 5), st.integers(1, 3)), max_size=12),
    st.lists(st.floats(0.01, 1), min_size=6, max_size=6),
    st.floats(0.01, 1),
)
def test_proposition_1_the_mixture_is_the_base_nearest_to_all_tasks(
    others: set[tuple[int, int]], weights: list[float], step: float
) -> None:
    """No other p is nearer, and the distance left is the mutual information of task and user."""
    exposed = [(user, 0) for user in range(6)] + [(task, task) for task in (1, 2, 3)]
    sampler = make_estimation(
        tables([*exposed, *others], users=7, tasks=4), base="exposures", device=CPU
    ).train
    q, m, p = shares(sampler, users=6, tasks=4)
    np.testing.assert_allclose(p, m @ q)
    lowest = expected_kl(q, m, p)
    perturbed = (1 - step) * p + step * np.array(weights) / sum(weights)
    assert expected_kl(q, m, perturbed) >= lowest - 1e-12
    joint = m[:, None] * q
    cells = joint[joint > 0]
    independent = np.outer(joint.sum(1), joint.sum(0))[joint > 0]
    information = float((cells * np.log(cells / independent)).sum())
    assert lowest == pytest.approx(information, abs=1e-12)


def test_the_users_base_holds_every_training_user_once_exposed_or_not() -> None:
    examples = tables([(0, 0), (0, 1), (1, 1)], users=5, tasks=2)
    made = make_estimation(examples, base="users", device=CPU)
    assert made.train.base.tolist() == [0, 1, 2, 3]
    assert made.valid.base.tolist() == [4]


@pytest.mark.parametrize("base", BASES)
def test_each_sampler_holds_the_pairs_of_its_own_users(base: Base) -> None:
    """Training users; visible pairs of validation users; their held-out pairs; no test user."""
    made_world = small_world()
    examples = made_world.examples
    made = make_estimation(examples, base=base, device=CPU)
    train, valid = set(made_world.rows("train").tolist()), set(made_world.rows("valid").tolist())
    known = {
        (user, task): held
        for user, task, held in zip(
            *(column.tolist() for column in vars(examples.pairs).values()), strict=True
        )
    }
    expected = {
        "train": {pair for pair in known if pair[0] in train},
        "valid": {pair for pair, held in known.items() if pair[0] in valid and not held},
        "held_out": {pair for pair, held in known.items() if pair[0] in valid and held},
    }
    assert expected["held_out"]
    for name, pairs in expected.items():
        sampler: PairSampler = getattr(made, name)
        found = list(zip(sampler.user.tolist(), sampler.task.tolist(), strict=True))
        assert sorted(found) == sorted(pairs)
        from_pairs = expected["train" if name == "train" else "valid"]
        if base == "exposures":
            assert sorted(sampler.base.tolist()) == sorted(user for user, _ in from_pairs)
        else:
            assert sampler.base.tolist() == sorted(train if name == "train" else valid)


def test_held_out_exposures_and_test_users_do_not_move_the_training() -> None:
    """What they are exposed to, and for test users also who they are: another run, equal bits."""
    examples, test = small_world().examples, small_world().rows("test")
    params = default_params(ratio={"max_epochs": 2, "batch_size": 256}).ratio
    pairs = examples.pairs
    hidden = pairs.held_out | np.isin(pairs.user, test)
    moved = np.where(hidden, (pairs.task + 1) % examples.tasks, pairs.task)
    x = examples.x.copy()
    x[test] += 1
    other = replace(examples, x=x, pairs=Pairs(pairs.user, moved, pairs.held_out))
    start = np.ones((examples.tasks, 3), np.float32)
    one, two = (
        train_conditional(some, start, params=params, seed=0, session=Session())
        for some in (examples, other)
    )
    assert one.e.tobytes() == two.e.tobytes()
    losses = [[(row["train_loss"], row["valid_loss"]) for row in m.history] for m in (one, two)]
    assert losses[0] == losses[1]
    assert one.history[0]["held_out_loss"] != two.history[0]["held_out_loss"]


@pytest.mark.parametrize("base", BASES)
def test_with_visible_all_everybody_trains_and_held_out_pairs_validate(base: Base) -> None:
    made_world = small_world()
    examples, pairs = made_world.examples, made_world.examples.pairs
    made = make_estimation(examples, base=base, visible="all", device=CPU)
    hidden = pairs.held_out
    of_valid = np.isin(pairs.user, made_world.rows("valid"))
    for sampler, mask in ((made.train, ~hidden), (made.valid, hidden & of_valid)):
        assert sampler.user.tolist() == pairs.user[mask].tolist()
        assert sampler.task.tolist() == pairs.task[mask].tolist()
    everybody = pairs.user[~hidden] if base == "exposures" else np.arange(len(examples.x))
    assert made.train.base.tolist() == everybody.tolist()
    alone = pairs.user[~hidden & of_valid] if base == "exposures" else made_world.rows("valid")
    assert made.valid.base.tolist() == made.held_out.base.tolist() == alone.tolist()


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("visible", ["train", "all"])
def test_negatives_of_held_out_pairs_have_not_met_the_item(base: Base, visible: Visible) -> None:
    examples = small_world().examples
    user, task, hidden = (column.tolist() for column in vars(examples.pairs).values())
    known = {(u, t) for u, t, held in zip(user, task, hidden, strict=True) if not held}
    made = make_estimation(examples, base=base, visible=visible, device=CPU)

    def met(pairs: PairSampler) -> int:
        users, tasks = pairs.fixed(torch.Generator().manual_seed(0))
        return sum(pair in known for pair in zip(users[1].tolist(), tasks.tolist(), strict=True))

    assert met(made.held_out) == 0
    assert (met(made.valid) > 0) == (visible == "train")  # visible pairs, beside all of p


def test_with_visible_all_held_out_exposures_of_test_users_move_nothing() -> None:
    examples, test = small_world().examples, small_world().rows("test")
    params = default_params(ratio={"visible": "all", "max_epochs": 2, "batch_size": 256}).ratio
    pairs = examples.pairs
    of_test = np.isin(pairs.user, test)
    outcomes = []
    for moved in (np.zeros(len(pairs), bool), of_test & pairs.held_out, of_test & ~pairs.held_out):
        task = np.where(moved, (pairs.task + 1) % examples.tasks, pairs.task)
        other = replace(examples, pairs=Pairs(pairs.user, task, pairs.held_out))
        start = np.ones((examples.tasks, 3), np.float32)
        made = train_conditional(other, start, params=params, seed=0, session=Session())
        outcomes.append(made.e.tobytes())
    assert outcomes[0] == outcomes[1] != outcomes[2]


@pytest.mark.parametrize(
    ("split", "visible", "line"),
    [
        ("train", "train", "can train: .* exposures of training users"),
        ("valid", "train", "can validate: .* visible exposures of validation users"),
        ("valid", "all", "can validate: .* held-out exposures of validation users"),
    ],
)
def test_no_exposure_to_learn_from_or_to_validate_by_is_an_error(
    split: str, visible: Visible, line: str
) -> None:
    examples = small_world().examples
    none = replace(examples, **{split: np.array([], np.int64)})
    with pytest.raises(PipelineError, match=rf"none of the [\d,]+ exposures .* {line}"):
        make_estimation(none, base="users", visible=visible, device=CPU)


def test_nobody_to_draw_negatives_from_is_an_error() -> None:
    examples = small_world().examples
    seen = np.isin(examples.pairs.user, examples.valid) & ~examples.pairs.held_out
    unseen = replace(examples, pairs=examples.pairs.where(~seen))
    make_estimation(unseen, base="users", visible="all", device=CPU)
    with pytest.raises(PipelineError, match="from which validation draws its negatives"):
        make_estimation(unseen, base="exposures", visible="all", device=CPU)


class Scores(nn.Module):
    """A logit a user and a task: all that there is to learn; notes what it is asked for."""

    def __init__(self, users: int, tasks: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(users, tasks))
        self.asked: dict[bool, list[tuple[Tensor, Tensor]]] = {True: [], False: []}

    def forward(self, user: Tensor, task: Tensor) -> Tensor:
        self.asked[self.training].append((user.clone(), task.clone()))
        return self.logits[user, task]


def estimated(seed: int = 0, base: Base = "exposures") -> tuple[Scores, list[Row], Estimation]:
    examples = small_world().examples
    data = make_estimation(examples, base=base, device=CPU)
    schedule = Schedule(lr=0.05, batch_size=200, max_epochs=3, patience=3)
    model = Scores(len(examples.x), examples.tasks)
    history = estimate_ratio(
        model, data, schedule, seed=seed, session=Session(), figures=lambda: {"more": 1.0}
    )
    return model, history, data


def test_the_history_holds_the_losses_and_further_figures() -> None:
    _, history, _ = estimated()
    assert [*history[0]] == ["epoch", "train_loss", "valid_loss", "held_out_loss", "more"]
    assert len(history) == 3


def test_only_training_pairs_are_learned_from_each_once_an_epoch() -> None:
    model, _, data = estimated()
    user, task = (torch.cat(column, -1) for column in zip(*model.asked[True], strict=True))
    positives = sorted(zip(user[0].tolist(), task.tolist(), strict=True))
    once = list(zip(data.train.user.tolist(), data.train.task.tolist(), strict=True))
    assert positives == sorted(3 * once)
    assert set(user[1].tolist()) <= set(data.train.base.tolist())


def test_validation_pairs_are_the_same_each_epoch_and_for_every_seed() -> None:
    one, other = (estimated(seed)[0].asked for seed in (0, 1))
    first = one[False][:2]  # visible, then held-out pairs
    for asked in (one, other):
        assert len(asked[False]) == 6
        for k, (user, task) in enumerate(asked[False]):
            assert torch.equal(user, first[k % 2][0])
            assert torch.equal(task, first[k % 2][1])
    assert not all(torch.equal(a, b) for (a, _), (b, _) in zip(one[True], other[True], strict=True))


def test_a_training_counts_epochs_from_the_plateau_and_keeps_all_random_states(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr(estimation, "fit", lambda model, **given: asked.update(given) or [])
    data = make_estimation(small_world().examples, base="users", device=CPU)
    schedule = Schedule(lr=0.05, batch_size=200, max_epochs=9, patience=3)
    kept = object()
    estimate_ratio(Scores(2, 2), data, schedule, seed=0, session=Session(checkpoint=kept))
    assert (asked["schedule"].patience, asked["plateaus"]) == (3, PLATEAUS)
    assert {name: type(source) for name, source in asked["random"].items()} == {
        "pairs": torch.Generator,
        "masks": MaskSource,
    }
    assert asked["session"].checkpoint is kept


def test_the_losses_of_pairs_do_not_depend_on_the_blocks() -> None:
    model = Scores(9, 4)
    model.logits.data = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    gen = torch.Generator().manual_seed(1)
    user, task = torch.randint(9, (2, 50), generator=gen), torch.randint(4, (50,), generator=gen)
    with torch.no_grad():
        whole = float(ratio_loss(model(user, task)))
        for block in (1, 7, 50, 1 << 17):
            losses = pair_losses(model, user, task, block)
            assert losses.shape == (50,)
            assert float(losses.mean()) == pytest.approx(whole, rel=1e-5)
        assert pair_losses(model, user[:, :0], task[:0]).shape == (0,)


def test_a_loss_that_never_left_the_plateau_rested_at_chance() -> None:
    rows = [{"valid_loss": loss} for loss in (1.39, PLATEAU, 1.4)]
    assert rested_at_chance(rows)
    assert not rested_at_chance([*rows, {"valid_loss": 1.38}])

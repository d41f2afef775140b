"""Several processes train as one: the same steps, whatever their number, and the same artefacts."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline import conditional, scoring
from pipeline.conditional import Conditional, train_conditional
from pipeline.errors import PipelineError
from pipeline.estimation import make_estimation, pair_losses
from pipeline.models.deepfm import DeepFM
from pipeline.models.ratio import RatioNet, SeedRatios, TaskRatios
from pipeline.pretraining import Pretraining, pretrain
from pipeline.ranks import ALONE, LostRankError, Ranks
from pipeline.scoring import score_all, score_together
from pipeline.sections import Base
from pipeline.steps.dealt import Named, fetch_rows
from pipeline.steps.sampler import CountedSampler, PairSampler
from pipeline.training import loop
from pipeline.training.checkpoint import CheckpointFile
from pipeline.training.deepfm import Interactions, logits_of, train_deepfm
from pipeline.training.history import Row
from pipeline.training.session import Session
from pipeline.training.shards import LEAST, Shards, here
from pipeline.training.shared_checkpoint import SharedCheckpoint
from pipeline.training.snapshot import Checkpoint, Snapshot
from pipeline.training.split import Split
from pipeline.training.step import make_step
from tests.together import together
from tests.worlds import default_params, small_world

CPU = torch.device("cpu")
QUICK = {"max_epochs": 2, "batch_size": 500, "lr": 0.01}
PARAMS = default_params(ratio=QUICK, pretrain=QUICK, features=QUICK | {"f_dim": 8, "hidden": [8]})
WORLD = small_world()
SIZES = (1, 2, 4)
SIZE = pytest.mark.parametrize("size", SIZES)
Weights = dict[str, np.ndarray]
Outcome = tuple[list[Row], Weights]


def of_train(made: Conditional) -> Outcome:
    return made.history, {n: t.numpy() for n, t in made.net.state_dict().items()} | {"e": made.e}


def train(ranks: Ranks, *, checkpoint: Checkpoint | None = None, **changed: object) -> Outcome:
    """Algorithm 1 on all tasks."""
    examples = WORLD.examples
    start = np.random.default_rng(0).normal(size=(examples.tasks, 5)).astype(np.float32)
    params = PARAMS.ratio.model_copy(update=changed)
    return of_train(
        train_conditional(
            examples,
            start,
            params=params,
            seed=0,
            session=Session(checkpoint=checkpoint, ranks=ranks),
        )
    )


def pretrained(ranks: Ranks, **changed: object) -> Outcome:
    """Algorithm 1 on five seed tasks, of which each of four processes has one or two."""
    made: Pretraining = pretrain(
        WORLD.examples,
        np.array([1, 4, 5, 9, 12]),
        base="exposures",
        params=PARAMS.pretrain.model_copy(update=changed),
        seed=0,
        session=Session(ranks=ranks),
    )
    return made.history, {n: t.numpy() for n, t in made.net.state_dict().items()}


def interactions(fields: int = 2) -> Interactions:
    """The user id, and a label that users share."""
    pairs = WORLD.examples.pairs
    rows = np.arange(len(WORLD.examples.x))
    codes = torch.from_numpy(np.stack([rows, rows % 3], 1))[:, 2 - fields :]
    user, item = (torch.from_numpy(column[~pairs.held_out]) for column in (pairs.user, pairs.task))
    return Interactions(user, item, codes, torch.ones(WORLD.examples.tasks + 5, 1))


def deepfm(
    ranks: Ranks, fields: int = 2, *, checkpoint: Checkpoint | None = None, **changed: object
) -> Outcome:
    params = PARAMS.features.model_copy(update=changed)
    net, history = train_deepfm(
        interactions(fields), params, seed=0, session=Session(checkpoint=checkpoint, ranks=ranks)
    )
    return history, {name: value.detach().numpy() for name, value in net.state_dict().items()}


def close(one: Outcome, other: Outcome) -> None:
    """Equal losses, AUCs but for a pair that was a tie but for rounding, and weights but where Adam
    makes much of the rounding of a gradient of 0."""
    for a, b in zip(one[0], other[0], strict=True):
        for figure in a:
            rounding = 1e-3 if figure.endswith("auc") else 5e-6
            assert a[figure] == pytest.approx(b[figure], rel=1e-5, abs=rounding, nan_ok=True)
    for name, value in one[1].items():
        np.testing.assert_allclose(value, other[1][name], atol=2e-4, err_msg=name)


def the_same(outcomes: list[Outcome]) -> Outcome:
    """What every process ended with, which must be one thing, to the bit."""
    for history, weights in outcomes[1:]:
        assert history == outcomes[0][0]
        for name, value in weights.items():
            np.testing.assert_array_equal(value, outcomes[0][1][name])
    return outcomes[0]


@pytest.mark.parametrize("learn", [train, pretrained, deepfm], ids=lambda f: f.__name__)
def test_one_two_and_four_processes_make_the_same_steps(learn: Callable[[Ranks], Outcome]) -> None:
    """Many batches an epoch, under dropout: order, negatives and masks are all the same."""
    one, two, four = (the_same(together(size, learn)) for size in SIZES)
    assert len(one[0]) == QUICK["max_epochs"]
    close(one, two)
    close(one, four)


def dealing(ranks: Ranks) -> Ranks:
    """The same processes, which deal out users' vectors and items too."""
    return replace(ranks, deal_out=True)


heads = partial(train, linear=0.01, stop="auc", base="users", visible="all")


@pytest.mark.parametrize(
    "learn", [train, heads, pretrained, deepfm], ids=["train", "heads", "pretrained", "deepfm"]
)
def test_dealing_out_vectors_and_items_makes_the_same_steps(
    learn: Callable[[Ranks], Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditional, "FETCHED", 7)
    whole = the_same(together(2, learn))
    for size in SIZES:
        close(whole, the_same(together(size, lambda ranks: learn(dealing(ranks)))))


Held = tuple[set[int], set[int]]  # lengths of x or the items' table, and of Adam's moments


def held(learn: Callable[..., Outcome], ranks: Ranks) -> Held:
    """What lies on a process at its steps, which are spied on: to be called in one of its own."""
    rows: set[int] = set()
    adams: list[torch.optim.Adam] = []
    make = loop._adam

    def spied(kind: type[nn.Module], table: str) -> None:
        loss = kind.loss

        def noting(self: nn.Module, *batch: object) -> Tensor:
            rows.add(len(getattr(self, table)))
            return loss(self, *batch)

        kind.loss = noting

    def noted(*arguments: object) -> torch.optim.Adam:
        adams.append(make(*arguments))
        return adams[-1]

    for kind, table in ((TaskRatios, "x"), (SeedRatios, "x"), (DeepFM, "item_id")):
        spied(kind, table)
    loop._adam = noted
    learn(ranks, max_epochs=1, batch_size=10_000)
    return rows, {len(state["exp_avg"]) for state in adams[0].state.values()}


@pytest.mark.parametrize("learn", [train, pretrained, deepfm], ids=lambda f: f.__name__)
def test_a_process_holds_its_own_rows_alone(learn: Callable[..., Outcome]) -> None:
    count = len(interactions().genres if learn is deepfm else WORLD.examples.x)
    for size in (2, 4):
        for rank, (rows, moments) in enumerate(
            together(size, lambda ranks: held(learn, dealing(ranks)))
        ):
            assert rows == {len(range(rank, count, size))}
            assert count not in moments
            if learn is deepfm:
                assert rows < moments
    assert together(2, lambda ranks: held(learn, ranks)[0]) == [{count}] * 2


def test_vectors_are_dealt_out_once_and_the_others_are_let_go() -> None:
    examples, ranks = WORLD.examples, Ranks(1, 3, alone=False, deal_out=True)
    own = examples.deal_x(ranks)
    np.testing.assert_array_equal(own.x, examples.x[1::3])
    assert own.x.base is None
    assert own.deal_x(ranks) is own
    assert own.users == examples.users == len(examples.x)
    assert len(own.learned) == len(examples.learned)
    assert examples.deal_x(replace(ranks, deal_out=False)) is examples.deal_x(ALONE) is examples


def test_rows_are_fetched_from_where_they_lie_and_their_gradients_go_back() -> None:
    """Some rows twice, some of nobody; process 1 names none at all."""
    table = torch.arange(22.0).view(11, 2)
    indices = [torch.tensor([[3, 9, 3], [10, 0, 7]]), torch.zeros(2, 0, dtype=torch.int64)]
    indices.append(torch.tensor([[3, 4], [4, 4]]))

    def work(ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
        own = ranks.own(table).clone().requires_grad_()
        named = Named.by(indices[ranks.rank], ranks)
        rows = named.fetch(own)
        (rows[named.place].sum() * (ranks.rank + 1)).backward()
        return named.rows, rows[named.place].detach(), own.grad

    expected = torch.zeros_like(table)
    for rank, index in enumerate(indices):
        expected.index_add_(0, index.flatten(), torch.full((index.numel(), 2), rank + 1.0))
    for rank, (rows, found, gradient) in enumerate(together(3, work)):
        assert rows.sort().values.equal(indices[rank].unique())
        assert found.equal(table[indices[rank]])
        assert gradient.equal(expected[rank::3])


def test_who_is_gone_when_gradients_go_home_is_missed_in_one_line() -> None:
    def work(ranks: Ranks) -> str:
        own = torch.zeros(2, 3, requires_grad=True)
        loss = Named.by(torch.arange(4), ranks).fetch(own).sum()
        if not ranks.leads:
            return ""
        with pytest.raises(LostRankError) as caught:
            loss.backward()
        return str(caught.value)

    line, _ = together(2, work)
    assert line.startswith("another of the processes that train together is gone (")
    assert "\n" not in line


def test_validation_goes_on_where_others_have_more_blocks() -> None:
    """Of 9, 0 and 3 pairs in blocks of 4: three blocks, and two times one."""
    x, e, gen = torch.randn(13, 6), torch.randn(5, 3), torch.Generator().manual_seed(0)
    net = RatioNet(x_dim=6, task_dim=3).eval()
    pairs = [
        (torch.randint(13, (2, n), generator=gen), torch.randint(5, (n,), generator=gen))
        for n in (9, 0, 3)
    ]

    def work(ranks: Ranks) -> float:
        model = TaskRatios(net, x=ranks.own(x).clone(), e=e, ranks=ranks)
        with torch.no_grad():
            return float(pair_losses(model, *pairs[ranks.rank], 4, ranks=ranks).mean())

    whole = TaskRatios(net, x=x, e=e)
    with torch.no_grad():
        expected = [float(pair_losses(whole, *of_one).mean()) for of_one in pairs]
    found = together(3, lambda ranks: work(dealing(ranks)))
    assert found == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert fetch_rows(x, pairs[0][0], ALONE) == (x, pairs[0][0])

    codes = torch.arange(5)[:, None]
    deep = DeepFM(sizes=[5], genres=torch.rand(13, 2), width=4, hidden=[8], dropout=0.0).eval()
    deep.draw_weights(1.0, gen)

    def logits(ranks: Ranks) -> Tensor:
        item, user = pairs[ranks.rank]
        if ranks.deal_out:  # in a process of its own
            deep.item_id.data = ranks.own(deep.item_id.data).clone()
        with torch.no_grad():
            return logits_of(deep, codes, user, item, 4, ranks=ranks)

    of_all = [logits(Ranks(rank)) for rank in range(3)]
    for own, expected in zip(together(3, lambda r: logits(dealing(r))), of_all, strict=True):
        torch.testing.assert_close(own, expected)


def to_user_0(self: PairSampler, n: int, gen: torch.Generator) -> Tensor:
    """No draw: every negative is the same user."""
    return torch.zeros(n, dtype=torch.int64)


@SIZE
@pytest.mark.parametrize("learn", [train, pretrained], ids=lambda f: f.__name__)
def test_on_fixed_batches_they_are_the_process_that_is_alone(
    learn: Callable[..., Outcome], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One batch an epoch, negatives that are given, no dropout: nothing is left to chance."""
    monkeypatch.setattr(PairSampler, "draw_base", to_user_0)
    monkeypatch.setattr(CountedSampler, "draw_base", to_user_0)
    fixed = {"batch_size": 10**6, "dropout": [0.0, 0.0, 0.0], "max_epochs": 12}
    close(the_same(together(size, lambda ranks: learn(ranks, **fixed))), learn(ALONE, **fixed))


@pytest.mark.parametrize("base", ["exposures", "users"])
def test_validation_pairs_and_their_negatives_are_those_of_the_process_that_is_alone(
    base: Base,
) -> None:
    """With nothing learned the losses on them are the same, and so is the watched AUC."""
    still = {"lr": 1e-30, "max_epochs": 1, "base": base}
    (alone,), _ = train(ALONE, **still)
    for size in (1, 2, 3):
        (row,), _ = the_same(together(size, lambda ranks: train(ranks, **still)))
        for figure in ("valid_loss", "held_out_loss", "slope", "scaled_valid_loss", "valid_auc"):
            assert row[figure] == pytest.approx(alone[figure], abs=1e-6), figure


def test_pairs_to_stop_by_are_those_of_the_process_that_is_alone() -> None:
    still = {"lr": 1e-30, "max_epochs": 1, "weight_decay": 0.0}
    (alone,), _ = deepfm(ALONE, **still)
    (row,), _ = the_same(together(3, lambda ranks: deepfm(ranks, **still)))
    assert row["valid_loss"] == pytest.approx(alone["valid_loss"], abs=1e-6)
    assert row["pair_auc"] == pytest.approx(alone["pair_auc"], abs=1e-6)


def test_a_table_that_users_share_is_in_every_process() -> None:
    close(*(the_same(together(size, lambda ranks: deepfm(ranks, fields=1))) for size in (1, 2)))


def test_the_base_is_over_the_exposures_to_all_tasks() -> None:
    """Each process holds the exposures to its own tasks, and draws for them from those of all."""
    whole = make_estimation(WORLD.examples, base="exposures", device=CPU)

    def drawn(ranks: Ranks) -> tuple[int, np.ndarray]:
        own = make_estimation(WORLD.examples.on(ranks), base="exposures", device=CPU, ranks=ranks)
        return len(own.train.task), own.train.draw_base(500, gen()).numpy()

    def gen() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    held = together(3, drawn)
    assert sum(count for count, _ in held) == len(whole.train.task)
    for count, negatives in held:
        assert count < len(whole.train.task)
        np.testing.assert_array_equal(negatives, whole.train.draw_base(500, gen()))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30))
def test_a_counted_column_gives_the_draws_of_the_column_in_order(users: list[int]) -> None:
    column = torch.tensor(sorted(users))
    entries = column.bincount(minlength=7).cumsum(0)
    none = torch.zeros(0, dtype=torch.int64)
    draws = [
        kind(none, none, base).draw_base(50, torch.Generator().manual_seed(1))
        for kind, base in ((PairSampler, column), (CountedSampler, entries))
    ]
    assert torch.equal(*draws)


@given(st.integers(1, 9), st.integers(1, 30))
def test_every_task_lies_on_one_process_and_in_one_of_its_shards(size: int, tasks: int) -> None:
    processes = [Ranks(rank, size, alone=False) for rank in range(size)]
    shards = sorted(number for ranks in processes for number in here(ranks))
    assert shards == list(range(len(shards)))
    assert len(shards) >= LEAST
    assert len(shards) % size == 0
    for ranks in processes:
        for row, task in enumerate(ranks.own(range(tasks))):
            assert here(ranks)[row % len(here(ranks))] == task % len(shards)


@given(st.lists(st.integers(0, 9), min_size=LEAST, max_size=LEAST), st.integers(1, 12))
def test_the_shares_of_a_batch_add_up_to_it(sizes: list[int], batch_size: int) -> None:
    """Of shards of any size, some without a pair, some batches without a pair of theirs."""
    if not sum(sizes):
        return
    ranks = Ranks(0, 1, alone=True)
    shards = Shards(ranks, sizes, batch_size=batch_size, seed=0, device=CPU)

    def draw(n: int, gen: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        yield from ((part, part) for part in torch.arange(sizes[n]).tensor_split(shards.steps))

    seen = 0
    for columns in shards.epoch(draw):
        counts, weights = [len(rows) for rows in columns[::3]], columns[2::3]
        assert [float(w) for w in weights] == pytest.approx([n / sum(counts) for n in counts])
        seen += sum(counts)
    assert seen == sum(sizes)
    assert shards.get_state().tolist() == [1]


class Kept:
    """A checkpoint in memory that keeps the last epoch of a run."""

    def __init__(self, kept: Snapshot | None = None) -> None:
        self.kept = kept

    def load(self) -> Snapshot | None:
        return self.kept

    def save(self, take: Callable[[], Snapshot]) -> None:
        snapshot = take()
        copied = {name: tensor.clone() for name, tensor in snapshot.tensors.items()}
        self.kept = replace(snapshot, tensors=copied, history=list(snapshot.history))


def test_a_training_goes_on_with_another_number_of_processes_as_if_nothing_had_been(
    tmp_path: Path,
) -> None:
    """Two processes, then four, then one; only the first of them has the file."""
    file = tmp_path / "training.safetensors"

    def part(epochs: int) -> Callable[[Ranks], Outcome]:
        def run(ranks: Ranks) -> Outcome:
            if not ranks.leads:
                return train(ranks, checkpoint=SharedCheckpoint(ranks, None), max_epochs=epochs)
            with CheckpointFile(file, seconds=0, tell=lambda line: None) as kept:
                kept._not_before = 0
                told = SharedCheckpoint(ranks, kept)
                return train(ranks, checkpoint=told, max_epochs=epochs)

        return run

    together(2, part(2))
    together(4, part(4))
    close(
        the_same(together(1, part(6))),
        the_same(together(2, lambda ranks: train(ranks, max_epochs=6))),
    )


@pytest.mark.parametrize(("first", "then"), [(0, 2), (2, 0)])
def test_a_process_alone_goes_on_with_what_several_began_and_they_with_its(
    first: int, then: int
) -> None:
    """Its draws are others, but weights, moments and history are whole."""

    def run(size: int, kept: Snapshot | None, epochs: int) -> tuple[Outcome, Snapshot]:
        if size == 0:
            memory = Kept(kept)
            return train(ALONE, checkpoint=memory, max_epochs=epochs), memory.kept

        def work(ranks: Ranks) -> tuple[Outcome, Snapshot]:
            memory = Kept(kept)
            return train(ranks, checkpoint=memory, max_epochs=epochs), memory.kept

        return together(size, work)[0]

    (history, _), kept = run(first, None, 3)
    assert kept.tensors["model/e"].shape == kept.tensors["adam 0/exp_avg"].shape
    (longer, weights), _ = run(then, kept, 4)
    assert longer[:3] == history
    assert longer[3]["epoch"] == 4
    assert longer[3]["train_loss"] == pytest.approx(history[2]["train_loss"], abs=0.05)
    assert np.abs(weights["e"] - kept.tensors["best/e"].numpy()).max() < 0.5


def test_items_that_were_dealt_out_go_on_where_they_are_not_and_back() -> None:
    """Two processes that deal items out, four that do not, three that do."""

    def part(size: int, deal_out: bool, epochs: int, kept: Snapshot | None) -> tuple:
        def work(ranks: Ranks) -> tuple[Outcome, Snapshot | None]:
            memory = Kept(kept)
            ranks = replace(ranks, deal_out=deal_out)
            return deepfm(ranks, checkpoint=memory, max_epochs=epochs), memory.kept

        outcomes, snapshots = zip(*together(size, work), strict=True)
        return the_same([*outcomes]), snapshots[0]

    _, kept = part(2, True, 2, None)
    items = len(interactions().genres)
    assert len(kept.tensors["best/item_id"]) == items
    assert sum(tensor.shape == (items, 5) for tensor in kept.tensors.values()) == 4
    _, kept = part(4, False, 3, kept)
    broken, _ = part(4, True, 5, kept)
    close(broken, the_same(together(2, lambda ranks: deepfm(ranks, max_epochs=5))))


@SIZE
@pytest.mark.parametrize("turn", [1, 20_000, scoring.TURN])
def test_scores_are_those_of_one_process_to_the_bit(
    size: int, turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "TURN", turn)  # pairs: a block, two, or all
    torch.manual_seed(0)
    net = RatioNet(x_dim=6, task_dim=3)
    x, e = torch.randn(900, 6), torch.randn(41, 3)  # 9 tasks a block, 5 blocks
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = score_all(net, x, e)
    torch.set_num_threads(threads)
    first, *others = together(size, lambda ranks: [*score_together(net, x, e, ranks)])
    assert np.concatenate(first).tobytes() == alone.tobytes()
    assert not any(others)
    blocks = max(1, turn // 8_192)  # in a turn, of 9 tasks
    assert len(first) == -(-len(e) // (9 * blocks))


def test_tables_are_whole_again_and_their_gradients_stay_at_home() -> None:
    def work(ranks: Ranks) -> tuple[list[float], list[float], list[float]]:
        model = nn.Linear(1, 5)  # rows of the weight are dealt out, the bias is everybody's
        with torch.no_grad():
            model.weight.copy_(torch.arange(5.0)[:, None])
            model.bias.zero_()
        with Split(model, ["weight"], ranks) as split:
            adam = torch.optim.Adam(model.parameters(), lr=0)
            step = make_step(
                lambda: model.weight.sum() * (ranks.rank + 1) + model.bias.sum(), adam, split
            )
            step()
            model.weight.data += 10
            grads = model.weight.grad.flatten().tolist(), model.bias.grad.tolist()
        return *grads, model.weight.flatten().tolist()

    for rank, (own, shared, whole) in enumerate(together(3, work)):
        assert own == [rank + 1] * len(range(rank, 5, 3))
        assert shared == [3.0] * 5
        assert whole == [10.0, 11.0, 12.0, 13.0, 14.0]


def test_a_process_that_differs_is_named_in_all() -> None:
    def work(ranks: Ranks) -> str:
        ranks.require_alike("the same")
        with pytest.raises(PipelineError, match="process 2 differs from process 0 in its code"):
            ranks.require_alike("other" if ranks.rank == 2 else "one")
        return "told"

    assert together(4, work) == ["told"] * 4


def test_means_are_over_all_and_the_same_everywhere() -> None:
    def work(ranks: Ranks) -> tuple[float, float, str]:
        nothing = ranks.rank == 1
        mean = ranks.mean(float("nan") if nothing else ranks.rank + 1.0, 0 if nothing else 2)
        return mean, ranks.mean(float("nan"), 0), ranks.told(f"ä{ranks.rank}")

    assert [found[::2] for found in together(3, work)] == [(2.0, "ä0")] * 3
    assert all(np.isnan(found[1]) for found in together(2, work))


def test_a_process_without_a_task_goes_along() -> None:
    """Three tasks over four."""
    few = replace(WORLD.examples, tasks=3)
    few = replace(few, pairs=few.pairs.where(few.pairs.task < 3))
    start = np.eye(3, dtype=np.float32)

    def work(ranks: Ranks) -> Outcome:
        session = Session(ranks=ranks)
        return of_train(train_conditional(few, start, params=PARAMS.ratio, seed=0, session=session))

    close(the_same(together(4, work)), the_same(together(1, work)))

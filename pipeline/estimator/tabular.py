"""Algorithm 1 on rows of grouped tabular data: every row is an exposure of its task to itself.

What the pipeline learns from users and items, this learns from any numbers in groups: x is a row,
t its group, q_t the law of the group's rows, and p that of all rows with a little background added.
Log ratios log q_t(x) / p(x): HIGH = common in its group, LOW = anomalous there.

Where neither q_t nor p has rows, nothing is learned and the ratio may be anything; and of a single
group, which is p itself, nothing is learned at all. Background gives p some mass all around the
rows, so that there the ratio is learned to be low.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.arrays import Bools, Doubles, Floats, Ints, Singles
from pipeline.estimation import Estimation, estimate_ratio
from pipeline.models.ratio import RatioNet, TaskRatios
from pipeline.params import Ratio
from pipeline.steps.sampler import PairSampler
from pipeline.training.history import Row
from pipeline.training.session import Session

NEAR, FAR = 0.1, 8.0  # distance of background from the rows, in standard deviations of a column
FEWEST = 4096  # pairs of an epoch, and entries of the base: of few rows each is there repeatedly,
# so that neither negatives nor background are a handful of points
BLOCK = 1 << 16  # pairs scored at a time
STEPS = 16  # of an epoch, at least


@dataclass(frozen=True)
class Rows:
    """Rows of a table, standardised, each with its task."""

    x: Singles  # (n, d)
    task: Ints  # (n,)

    def __len__(self) -> int:
        return len(self.x)

    def __add__(self, other: "Rows") -> "Rows":
        return Rows(np.concatenate((self.x, other.x)), np.concatenate((self.task, other.task)))

    def take(self, chosen: Bools | Ints) -> "Rows":
        """Some of the rows."""
        return Rows(self.x[chosen], self.task[chosen])


@dataclass(frozen=True)
class Parts:
    """Rows to learn from, to stop by, and to calibrate on."""

    train: Rows
    valid: Rows
    calibration: Rows


def divide(
    rows: Rows,
    *,
    valid: float,
    calibration: float,
    gen: np.random.Generator,
    known: int = 0,
    most: int | None = None,
) -> Parts:
    """Divide the rows of every task at random; a new task keeps at least one to learn from.

    Args:
        rows: at least one.
        valid: share of a task's rows to stop by; where no task is known some row is, unless the
            share is 0, if one can be spared.
        calibration: share to calibrate on. Both are rounded up or down by chance, so that tasks of
            few rows give theirs together; rows to stop by are taken first.
        gen: of the chance.
        known: so many tasks, the first, have learned from other rows, and may give all of these.
        most: rows of a task to learn from, at least one; what it has beyond goes to calibrate on.
    """
    order = np.lexsort((gen.random(len(rows)), rows.task))
    task, count = np.unique(rows.task, return_counts=True)
    spare = count - (task >= known)
    n_valid = np.minimum(np.floor(valid * count + gen.random(len(task))), spare)
    if valid > 0 and not known and not n_valid.any():
        n_valid[count.argmax()] = min(1, spare.max())
    n_calibration = np.floor(calibration * count + gen.random(len(task)))
    n_calibration = np.minimum(n_calibration, spare - n_valid)
    if most is not None:
        n_calibration = np.maximum(n_calibration, count - n_valid - most)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)  # within the task
    is_valid = place < np.repeat(n_valid, count)
    is_train = place >= np.repeat(n_valid + n_calibration, count)
    return Parts(
        rows.take(order[is_train]),
        rows.take(order[is_valid]),
        rows.take(order[~is_valid & ~is_train]),
    )


@dataclass(frozen=True)
class Reservoir:
    """A uniform sample of all rows there have been, of at most `limit`."""

    rows: Rows
    seen: int
    limit: int

    def add(self, new: Rows, gen: np.random.Generator) -> "Reservoir":
        """The sample once `new` rows have come."""
        seen = self.seen + len(new)
        if seen <= self.limit:
            return Reservoir(self.rows + new, seen, self.limit)
        drawn = gen.choice(seen, self.limit, replace=False, shuffle=False)
        of_new = int((drawn >= self.seen).sum())  # numpy's hypergeometric ends at 10^9 rows
        old = self.rows.take(gen.permutation(len(self.rows))[: self.limit - of_new])
        return Reservoir(old + new.take(gen.permutation(len(new))[:of_new]), seen, self.limit)


@dataclass(frozen=True)
class Kept:
    """What is kept of all rows there have been: some to learn from again, all to calibrate on."""

    train: Reservoir
    valid: Reservoir
    calibration: Rows

    @classmethod
    def nothing(cls, columns: int, limit: int) -> "Kept":
        """Nothing yet; at most `limit` rows will be kept to learn from, a tenth to stop by."""
        none = Rows(np.empty((0, columns), np.float32), np.empty(0, np.int64))
        return cls(Reservoir(none, 0, limit), Reservoir(none, 0, max(limit // 10, 1)), none)

    @property
    def seen(self) -> int:
        """How many rows there have been."""
        return self.train.seen + self.valid.seen + len(self.calibration)

    def add(self, parts: Parts, gen: np.random.Generator) -> "Kept":
        """What is kept once more rows have come."""
        train, valid = self.train.add(parts.train, gen), self.valid.add(parts.valid, gen)
        return Kept(train, valid, self.calibration + parts.calibration)


def smear(x: Singles, n: int, gen: np.random.Generator) -> Singles:
    """Background: rows drawn from `x` (m, d), about half of their columns moved, (n, d).

    How far is drawn anew for every row, uniformly in the logarithm: background is dense near the
    rows and thin far out, in any number of columns.
    """
    distance = np.exp(gen.uniform(np.log(NEAR), np.log(FAR), (n, 1)))
    moved = gen.random((n, x.shape[1])) < 0.5
    drawn = x[gen.integers(len(x), size=n)]
    return (drawn + moved * distance * gen.standard_normal((n, x.shape[1]))).astype(np.float32)


def learn(
    net: RatioNet,
    e: Singles,
    train: Rows,
    valid: Rows,
    *,
    background: float,
    params: Ratio,
    gen: np.random.Generator,
    device: torch.device,
) -> list[Row]:
    """Run Algorithm 1 from where `net` stands, and leave it trained, on the CPU, in eval mode.

    The embeddings stay where they are: then a group that comes later, placed by the mean of its
    rows, is read as those are that were learned from.

    Args:
        net: the network.
        e: embeddings (M, e_dim).
        train: rows to learn from.
        valid: rows to stop by.
        background: its share of p.
        params: the schedule.
        gen: of background, order, negatives and dropout.
        device: where to train.

    Returns:
        The history.

    Raises:
        PipelineError: a loss that is not finite.
    """
    x, train_base, valid_base = _with_background(train, valid, background, gen)
    first_valid = len(train)
    data = Estimation(
        _sampler(train, 0, train_base, device),
        _sampler(valid, first_valid, valid_base, device),
        _sampler(valid.take(np.arange(0)), first_valid, valid_base, device),  # no pairs held out
    )
    model = TaskRatios(net, x=torch.from_numpy(x), e=torch.from_numpy(e), freeze_e=True).to(device)
    batch = min(params.batch_size, len(data.train.user) // STEPS)
    schedule = params.model_copy(update={"batch_size": batch})
    seed = int(gen.integers(2**31))
    history = estimate_ratio(
        model, data, schedule, seed=seed, session=Session(device), loss=model.loss
    )
    for row in history:
        del row["held_out_loss"]  # there are no such pairs here
    net.cpu().eval()
    return history


def _with_background(
    train: Rows, valid: Rows, share: float, gen: np.random.Generator
) -> tuple[Singles, Ints, Ints]:
    """All rows, then background; and from which of them to draw negatives, in either phase."""
    tables, bases = [train.x, valid.x], []
    first = 0
    for rows in (train, valid):
        own = np.arange(first, first + len(rows))
        own = np.tile(own, _repeats(rows))
        n = round(share / (1 - share) * len(own))
        start = sum(map(len, tables))
        tables.append(smear(train.x, n, gen))
        bases.append(np.concatenate((own, np.arange(start, start + n))))
        first += len(rows)
    return np.concatenate(tables), bases[0], bases[1]


def _sampler(rows: Rows, first: int, base: Ints, device: torch.device) -> PairSampler:
    """The rows, which begin at row `first` of x, against the base."""
    places = np.arange(first, first + len(rows))
    columns = (np.tile(places, _repeats(rows)), np.tile(rows.task, _repeats(rows)), base)
    user, task, drawn_from = (torch.from_numpy(column).to(device) for column in columns)
    return PairSampler(user, task, drawn_from)


def _repeats(rows: Rows) -> int:
    """How often each row is there, so that together they are many."""
    return -(-FEWEST // max(len(rows), 1))


@torch.no_grad()
def log_ratios(net: RatioNet, e: Singles, x: Floats, task: Ints) -> Doubles:
    """Log ratios of rows x (n, d), each under its task, (n,).

    In double precision: equal rows score equally but for the last bits, which vary with the number
    of rows that are multiplied together.
    """
    double, embeddings = deepcopy(net).double(), torch.from_numpy(e).double()
    blocks = zip(_blocks(x, BLOCK), torch.from_numpy(task).split(BLOCK), strict=True)
    return torch.cat([double(part, embeddings[of]) for part, of in blocks]).numpy()


@torch.no_grad()
def mixture_log_ratios(net: RatioNet, e: Singles, x: Floats, share: Doubles) -> Doubles:
    """Log ratios of rows x (n, d) under all tasks mixed, log sum_t m_t q_t / p, (n,).

    Args:
        net: the network.
        e: embeddings (M, e_dim).
        x: the rows.
        share: m_t of each task, (M,); they sum to 1.
    """
    double, embeddings = deepcopy(net).double(), torch.from_numpy(e).double()
    weight = torch.from_numpy(share).log()[:, None]
    blocks = _blocks(x, max(BLOCK // len(e), 1))
    mixed = [
        (double.of_grid(double.user_side(part), embeddings) + weight).logsumexp(0)
        for part in blocks
    ]
    return torch.cat(mixed).numpy()


def _blocks(x: Floats, size: int) -> Iterator[torch.Tensor]:
    yield from torch.from_numpy(x.astype(np.float64)).split(size)

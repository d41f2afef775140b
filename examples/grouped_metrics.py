"""Daily metrics of many groups, made up; and days on which a total hides what two groups do."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
COLUMNS = ["events", "users", "revenue", "weekend"]
FALL = 0.8  # of a group's volume


@dataclass(frozen=True)
class World:
    """What is usual in each of the groups.

    Attributes:
        name: (G,) country, event and product.
        events: (G,) a day.
        weekend: (G,) share of that at a weekend: in some groups people are at work.
        noise: (G,) daily spread, in logarithms.
        users: (G,) an event.
        price: (G,) revenue of an event.
    """

    name: npt.NDArray[np.str_]
    events: Floats
    weekend: Floats
    noise: Floats
    users: Floats
    price: Floats

    @classmethod
    def of(cls, groups: int, gen: np.random.Generator, called: str = "country") -> Self:
        """Draw groups of 100 to 100,000 events a day."""
        at_work = gen.random(groups) < 0.3
        quiet, busy = gen.uniform(0.1, 0.3, groups), gen.uniform(0.7, 1.5, groups)
        return cls(
            name=np.array(
                [f"{called} {n // 15}/event {n // 5 % 3}/product {n % 5}" for n in range(groups)]
            ),
            events=np.exp(gen.uniform(np.log(100), np.log(100_000), groups)),
            weekend=np.where(at_work, quiet, busy),
            noise=gen.uniform(0.05, 0.25, groups),
            users=gen.uniform(0.1, 0.9, groups),
            price=np.exp(gen.normal(0, 1, groups)),
        )

    def volumes(self, days: Ints, gen: np.random.Generator) -> Ints:
        """Events of each day in each group, (D, G)."""
        usual = self.events * np.where(is_weekend(days)[:, None], self.weekend, 1.0)
        return gen.poisson(usual * np.exp(self.noise * gen.standard_normal(usual.shape)))

    def table(self, volumes: Ints, days: Ints, gen: np.random.Generator) -> pd.DataFrame:
        """A row a day and group: logarithms of its metrics, whether it is a weekend; `group`."""
        users = gen.binomial(volumes, self.users)
        revenue = volumes * self.price * np.exp(0.05 * gen.standard_normal(volumes.shape))
        weekend = np.broadcast_to(is_weekend(days)[:, None], volumes.shape)
        columns = (np.log1p(volumes), np.log1p(users), np.log1p(revenue), weekend.astype(float))
        frame = pd.DataFrame({name: c.ravel() for name, c in zip(COLUMNS, columns, strict=True)})
        return frame.assign(group=np.tile(self.name, len(days)))


def is_weekend(days: Ints) -> Bools:
    """Which of the days are one."""
    return days % 7 >= 5


def broken(volumes: Ints, gen: np.random.Generator) -> tuple[Ints, Bools]:
    """Each day lets one group lose 80 % and another all of its volume, (D, G).

    The other groups take it over in proportion, to the last event: the day's total stays. None of
    the two is among the largest tenth, whose fall would show in all the others.

    Returns:
        The volumes, and which of them are the two, (D, G).
    """
    changed, hit = volumes.copy(), np.zeros(volumes.shape, bool)
    eligible = np.argsort(volumes.sum(0))[: round(0.9 * volumes.shape[1])]
    for day, row in enumerate(volumes):
        falls, stops = gen.choice(eligible, 2, replace=False)
        hit[day, [falls, stops]] = True
        changed[day, falls] = round((1 - FALL) * row[falls])
        changed[day, stops] = 0
        lost = row.sum() - changed[day].sum()
        others = np.flatnonzero(~hit[day])
        upto = np.round(lost * np.cumsum(row[others]) / row[others].sum()).astype(np.int64)
        changed[day, others] += np.diff(upto, prepend=0)
    return changed, hit

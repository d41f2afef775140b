"""Take in new exposures without training: of known users and items, and of new ones.

What is fitted and added up grows with what is new: the vectors of those users who came later and
have new exposures, the sums over the audiences they belong to, the tasks that came later. The
tables are read, put in order and written whole.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch

from pipeline import schemas
from pipeline.arrays import Ints, Singles
from pipeline.datasets.source import Source
from pipeline.errors import PipelineError
from pipeline.estimation import CHANCE, pair_losses
from pipeline.models.ratio import RatioNet, TaskRatios
from pipeline.newcomers.audience import Audience
from pipeline.newcomers.drift import Drift
from pipeline.newcomers.placement import FEWEST
from pipeline.newcomers.running import Running
from pipeline.pairs import called, ids_of, shown
from pipeline.sections import Base
from pipeline.storage import matrix, vectors
from pipeline.unmet import Met

FoldIn = Callable[[pa.Table, pa.Table], Singles]  # users, their exposures -> x (n, x_dim)
NEGATIVES = 8  # a pair, behind the drift
ENOUGH = 100  # pairs, with which the drift says something


@dataclass(frozen=True)
class Updated:
    """What an update has done.

    Attributes:
        pairs: exposures that were not known.
        users: users who had not been there.
        folded: users whose vectors were fitted: they, and those who came later and have met more.
        items: items that had not been there.
        tasks: tasks that came later, all of them.
    """

    pairs: int
    users: int
    folded: int
    items: int
    tasks: int


def update(
    running: Running, new: Source, net: RatioNet, *, base: Base, fold: FoldIn | None
) -> tuple[Running, Updated]:
    """Take in new exposures.

    Args:
        running: as it is before.
        new: exposures, some of which may be known; users and items are those they name.
        net: the trained network, for the drift.
        base: the p that it was trained against.
        fold: gives vectors to users who came later; None where vectors are ready-made.

    Raises:
        PipelineError: new users where vectors are ready-made, or fields of theirs are missing.
    """
    pairs = _not_known(new.exposures, running.exposures)
    known = _ids(running.features, "user") if fold is None else running.before
    came = np.setdiff1d(_ids(pairs, "user"), known)
    users = _joined(running.users, new.users, "user")
    if len(came) and fold is None:
        first = called(_rows_with(users, came[:1]), "user", 0)
        raise PipelineError(
            f"user {first} is new ({len(came):,} such users), and the vectors are ready-made; put "
            "theirs where the others come from (features.model table: your table of features) and "
            "run `dvc repro`."
        )
    exposures = pa.concat_tables([running.exposures, pairs])
    exposures = exposures.sort_by([("user_id", "ascending"), ("item_id", "ascending")])
    features = running.features
    if fold is not None and len(came):
        x = fold(_rows_with(users, came), shown(_rows_with(exposures, came)))
        features = _replaced(features, came, x)
    foreseen = _foreseen(running, pairs)
    moved = replace(
        running,
        users=users,
        items=_joined(running.items, new.items, "item"),
        exposures=exposures,
        features=features,
        foreseen=np.concatenate((running.foreseen, foreseen)),
        drift=_drift(running, foreseen, net, base),
    )
    done = _with_tasks(replace(moved, audience=_audience(running, moved, pairs, came)))
    counts = (done.users.num_rows, done.items.num_rows)
    report = Updated(
        pairs=pairs.num_rows,
        users=counts[0] - running.users.num_rows,
        folded=len(came),
        items=counts[1] - running.items.num_rows,
        tasks=int(done.later.sum()),
    )
    return done, report


def skill_left(drift: Drift, held_out_loss: float) -> tuple[float, float] | None:
    """The share of what was learned that new pairs still bear out, and its standard error.

    None where the pairs are too few, or where the training had learned nothing that held. The error
    is that of the new pairs; the held-out loss is taken as it is.

    1: they are foreseen as well as the held-out pairs of validation users were at the training. 0:
    no better than by chance.

    Args:
        drift: the losses of the new pairs.
        held_out_loss: of the best epoch of the training, of log ratios scaled as the network's are.
    """
    if drift.pairs < ENOUGH or not held_out_loss < CHANCE:
        return None
    learned = CHANCE - held_out_loss
    return (CHANCE - drift.mean) / learned, drift.error / learned


def _ids(table: pa.Table, who: str) -> Ints:
    return ids_of(table, f"{who}_id")


def _rows_with(table: pa.Table, users: Ints) -> pa.Table:
    """The rows of some users in a table that is sorted by them."""
    known = _ids(table, "user")
    start, end = (np.searchsorted(known, users, side) for side in ("left", "right"))
    length = end - start
    before = np.cumsum(length) - length
    return table.take(np.arange(length.sum()) + np.repeat(start - before, length))


def _not_known(new: pa.Table, known: pa.Table) -> pa.Table:
    """The new pairs among `new`, as exposures that are not held out."""
    keys = ["user_id", "item_id"]
    of_these = _rows_with(known, np.unique(_ids(new, "user"))).select(keys)
    pairs = new.join(of_these, keys, join_type="left anti").sort_by(
        [(k, "ascending") for k in keys]
    )
    pairs = pairs.append_column("held_out", pa.array(np.zeros(pairs.num_rows, bool)))
    return pairs.select(list(schemas.EXPOSURES.columns))


def _joined(known: pa.Table, named: pa.Table, who: str) -> pa.Table:
    """The users, or the items, with those that are not known yet."""
    new = ~np.isin(_ids(named, who), _ids(known, who))
    more = named.filter(pa.array(new)).select(known.column_names)
    return pa.concat_tables([known, more]).sort_by(f"{who}_id")


def _replaced(features: pa.Table, ids: Ints, x: Singles) -> pa.Table:
    """Features in which the users `ids` have the vectors x (n, x_dim)."""
    others = features.filter(pa.array(~np.isin(_ids(features, "user"), ids)))
    theirs = pa.table({"user_id": ids, "x": vectors(x)})
    return pa.concat_tables([others, theirs]).sort_by("user_id")


def _audience(running: Running, moved: Running, pairs: pa.Table, came: Ints) -> Audience:
    """The sums with the new pairs, in which the users who `came` later have their new vectors."""
    new_items = np.setdiff1d(_ids(moved.items, "item"), _ids(running.items, "item"))
    audience = running.audience.with_items(new_items)
    there = np.intersect1d(came, _ids(running.features, "user"))
    of_others = pairs.filter(pa.array(~np.isin(_ids(pairs, "user"), came)))
    for exposures, features, sign in (
        (shown(_rows_with(running.exposures, there)), running.features, -1),
        (shown(_rows_with(moved.exposures, came)), moved.features, 1),
        (of_others, moved.features, 1),
    ):
        who, user = np.unique(_ids(exposures, "user"), return_inverse=True)
        x = matrix(_rows_with(features, who).column("x"))
        counts = (np.isin(who, running.learned) | np.isin(who, came))[user]
        audience = audience.add(_ids(exposures, "item"), user, x, counts=counts, sign=sign)
    return audience


def _with_tasks(running: Running) -> Running:
    """Tasks as they were trained, and those that came later, placed by their audiences of now."""
    trained = running.tasks.filter(pa.array(~running.later))
    audience = running.audience
    later = ~np.isin(audience.item_id, _ids(trained, "item")) & (audience.counted >= FEWEST)
    placed = pa.table(
        {
            "item_id": audience.item_id[later],
            "exposures": audience.exposures[later],
            "train_exposures": audience.counted[later],
        }
    )
    tasks = pa.concat_tables([trained.drop_columns("task_id"), placed])
    e = np.concatenate((running.e[~running.later], running.placement.apply(audience.means[later])))
    order = np.argsort(_ids(tasks, "item"), kind="stable")
    number = pa.array(np.arange(len(order), dtype=np.int32))
    return replace(
        running,
        tasks=tasks.take(order).add_column(0, "task_id", number),
        e=e[order],
        later=(np.arange(len(order)) >= trained.num_rows)[order],
    )


def _foreseen(running: Running, pairs: pa.Table) -> Ints:
    """Those new pairs that are like held-out ones of validation users, (n, 2): user_id, item_id.

    Of users whom the training knew and who took no part in it, to tasks that were trained.
    """
    user, item = _ids(pairs, "user"), _ids(pairs, "item")
    known = np.isin(user, _untrained(running))
    fits = known & np.isin(item, _ids(running.tasks, "item")[~running.later])
    return np.stack((user[fits], item[fits]), axis=1)


def _untrained(running: Running) -> Ints:
    return np.setdiff1d(running.before, running.learned)


def _drift(running: Running, new: Ints, net: RatioNet, base: Base) -> Drift:
    """With the losses of new pairs (n, 2) by the vectors that their users have from the training.

    Beside users like them, of whom no exposure to the item was visible at the training.
    """
    ids, items = _ids(running.features, "user"), _ids(running.tasks, "item")[~running.later]

    def rows(of: Ints) -> tuple[Ints, Ints]:
        return np.searchsorted(ids, of[:, 0]), np.searchsorted(items, of[:, 1])

    user, task = rows(new)
    if not len(user):
        return running.drift
    visible, came_since = rows(_foreseen(running, shown(running.exposures))), running.foreseen
    at_training = ~Met.of(*rows(came_since)).has(*visible)
    visible = visible[0][at_training], visible[1][at_training]
    others = visible[0] if base == "exposures" else np.searchsorted(ids, _untrained(running))
    if not len(others):
        return running.drift
    gen = np.random.default_rng(0)
    users, tasks = np.tile(user, NEGATIVES), np.tile(task, NEGATIVES)
    negative = Met.of(*visible).unmet(
        lambda: others[gen.integers(len(others), size=len(users))], tasks
    )
    both = torch.from_numpy(np.stack((users, negative)))
    e = torch.from_numpy(running.e[~running.later])
    model = TaskRatios(net, x=torch.from_numpy(running.x), e=e).eval()
    with torch.no_grad():
        losses = pair_losses(model, both, torch.from_numpy(tasks))
    of_each = losses.double().view(NEGATIVES, -1).mean(0)
    return running.drift.add(user, of_each.numpy())

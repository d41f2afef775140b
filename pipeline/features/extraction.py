"""From tables to user vectors: whom DeepFM learns from, and everybody's x."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from pipeline.arrays import Bools, Codes, Ints, Singles
from pipeline.errors import PipelineError
from pipeline.features.closed_form import ClosedForm
from pipeline.features.directions import Directions
from pipeline.features.extractor import OWN_FIELD, Extractor
from pipeline.features.factors import Factors
from pipeline.features.scale import Scale, with_activity
from pipeline.model_files import read_config
from pipeline.pairs import find, ids_of, in_rows, rows_of, shown, split_rows
from pipeline.params import Features
from pipeline.training.deepfm import Interactions, train_deepfm
from pipeline.training.history import Row
from pipeline.training.session import Session
from pipeline.vocabulary import distinct_codes, raw_codes


@dataclass(frozen=True)
class Extraction:
    """A trained extractor, and what came out of it."""

    extractor: Extractor
    x: Singles  # (U, f_dim, and one more with the activity) a row a user
    trained: Bools  # (U,) whom DeepFM was trained on; the others are folded in
    history: list[Row]


def extract(
    users: pa.Table,
    items: pa.Table,
    exposures: pa.Table,
    splits: pa.Table,
    params: Features,
    *,
    seed: int,
    session: Session,
) -> Extraction:
    """Train DeepFM on visible exposures, and give every user a vector.

    Args:
        users: user_id and the fields.
        items: item_id and genres.
        exposures: held-out ones are shown to nothing.
        splits: each user's split, for `params.visible: train`.
        params: whom and how to train.
        seed: of all randomness.
        session: where and how to train.

    Raises:
        PipelineError: nobody to learn from, a field that is none, or a loss that is not finite.
    """
    visible = shown(exposures)
    user = rows_of(ids_of(visible, "user_id"), ids_of(users, "user_id"), "user")
    may_learn = visible_users(users, splits, params)
    trained, item_ids = _choose(user, ids_of(visible, "item_id"), may_learn)
    known = users.filter(pa.array(trained))
    fields = {name: _vocabulary(known, name, params) for name in params.user_fields}
    learned = visible.filter(pa.array(trained[user]))
    data = _interactions(known, items, learned, fields, item_ids, session.device)
    net, history = train_deepfm(data, params, seed=seed, session=session)
    with torch.no_grad():
        raw = net.embed_users(data.codes)[..., 1:].flatten(1).cpu()
    if params.activity:
        raw = with_activity(raw, known, learned)
    extractor = Extractor(net, fields, item_ids, Scale.of(raw), params.activity)
    x = np.empty((len(users), raw.shape[1]), np.float32)
    x[trained] = extractor.vectors(known, learned)
    x[~trained] = extractor.newcomers(
        users.filter(pa.array(~trained)),
        visible.filter(pa.array(~trained[user])),
        torch.Generator(session.device).manual_seed(seed),
    )
    return Extraction(extractor, x, trained, history)


CLOSED_FORM: Mapping[str, type[ClosedForm]] = {"svd": Directions, "als": Factors}


def read_extractor(path: Path, device: torch.device) -> Extractor | ClosedForm | None:
    """What gives newcomers their vectors, whichever wrote the file; None: they are ready-made.

    Raises:
        PipelineError: no such file, or one that is damaged.
    """
    config = read_config(path)
    if "network" in config:
        return Extractor.read(path, device)
    return CLOSED_FORM[str(config["model"])].read(path) if "model" in config else None


def closed_form(
    users: pa.Table, exposures: pa.Table, splits: pa.Table, params: Features, *, seed: int
) -> ClosedForm:
    """Learn vectors by `params.model`, one of CLOSED_FORM; the arguments are those of `extract`.

    Raises:
        PipelineError: fewer users or items than numbers are wanted.
    """
    visible = visible_users(users, splits, params)
    return CLOSED_FORM[params.model].fit(users, shown(exposures), visible, params, seed=seed)


def visible_users(users: pa.Table, splits: pa.Table, params: Features) -> Bools:
    """Which users (U,) the extractor may learn from."""
    if params.visible == "all":
        return np.ones(len(users), bool)
    return in_rows(np.arange(len(users)), split_rows(splits, users, "train"), len(users))


def _vocabulary(users: pa.Table, field: str, params: Features) -> Codes:
    """The codes of a field that get an embedding each; rarer ones share one. Ids are all rare."""
    return distinct_codes(users, field, 1 if field == OWN_FIELD else params.min_users)


def _choose(user: Ints, item_id: Ints, may_learn: Bools) -> tuple[Bools, Ints]:
    """The users to train on, (U,), and the items, sorted: those that users who may learn have seen.

    A user who has seen none or all of these items has nothing to be told apart by, and is folded in
    with those who may not be learned from.
    """
    item_ids = np.unique(item_id[may_learn[user]])
    seen = np.bincount(user, minlength=len(may_learn))
    trained = may_learn & (seen > 0) & (seen < len(item_ids))
    if seen[trained].sum() < 2:
        raise PipelineError(
            f"features: {seen[trained].sum():,} visible exposures to learn from, of "
            f"{trained.sum():,} users to {len(item_ids):,} items (users who have seen them all "
            "do not count); DeepFM needs more exposures."
        )
    return trained, item_ids


def _interactions(
    users: pa.Table,
    items: pa.Table,
    exposures: pa.Table,
    fields: Mapping[str, Codes],
    item_ids: Ints,
    device: torch.device,
) -> Interactions:
    """The exposures as rows of the users table and of `item_ids`."""
    codes = [find(raw_codes(users, name), vocabulary) for name, vocabulary in fields.items()]
    arrays = (
        rows_of(ids_of(exposures, "user_id"), ids_of(users, "user_id"), "user"),
        rows_of(ids_of(exposures, "item_id"), item_ids, "item"),
        np.stack(codes, 1),
        genre_shares(items, item_ids),
    )
    return Interactions(*(torch.from_numpy(array).to(device) for array in arrays))


def genre_shares(items: pa.Table, item_ids: Ints) -> Singles:
    """Share of each genre in each of the items, (I, G): one over the number of its genres.

    Genres are in order of their names; an item without genres has a row of zeros.
    """
    rows = rows_of(item_ids, ids_of(items, "item_id"), "item")
    genres = items.column("genres").combine_chunks().take(pa.array(rows))
    names = genres.flatten().to_numpy(zero_copy_only=False).astype(str)
    distinct, code = np.unique(names, return_inverse=True)
    count = genres.value_lengths().to_numpy()
    shares = np.zeros((len(rows), len(distinct)), np.float32)
    np.add.at(shares, (np.repeat(np.arange(len(rows)), count), code), 1)
    shares /= np.maximum(count, 1)[:, None]
    return shares

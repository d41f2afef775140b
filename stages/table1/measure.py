"""What every cell of Table 1 ends with: its scores, measured as the main stage measures them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from stages.evaluate import PARAM_KEYS
from stages.main_stage import stage
from stages.table1.shell import Place

if TYPE_CHECKING:
    from torch import device

    from pipeline.arrays import Ints, Singles
    from pipeline.evaluation import History

    Score = Callable[[Ints, device], Singles]


def measure(
    place: Place,
    features: Path,
    score: "Score",
    *,
    history: "History",
    out: Path,
    started: float,
    params: Path,
) -> None:
    """Score every validation and test user under every task; write what `evaluate` finds.

    Args:
        place: where the shared files lie.
        features: the folder of the cell's x.
        score: from rows of the features table (U,) to scores (M, U); high = common.
        history: the epochs of the scorer; empty where it has none.
        out: the file of figures.
        started: when the cell was, by time.perf_counter; its seconds end with its scores.
        params: the cell's params file.
    """
    with stage("evaluate", params, *PARAM_KEYS, outputs=[], run_info=None) as run:
        import numpy as np

        from pipeline import schemas
        from pipeline.evaluation import Tables, evaluate
        from pipeline.score_matrix import score_table
        from pipeline.splits import measured_users
        from pipeline.storage import read_table
        from pipeline.text_files import read_csv, write_json

        people = read_table(features / "users.parquet", schemas.FEATURES)
        splits = read_table(place.prepared("splits"), schemas.SPLITS)
        tasks = read_table(place.prepared("tasks"), schemas.TASKS)
        rows = measured_users(splits, people, run.params.evaluate.users).rows
        scores = score(rows, run.device())
        seconds = time.perf_counter() - started
        found = evaluate(
            Tables(
                scores=score_table(scores, tasks, people.column("user_id").to_numpy()[rows]),
                tasks=tasks,
                users=read_table(place.prepared("users"), schemas.USERS),
                splits=splits,
                exposures=read_table(place.prepared("exposures"), schemas.EXPOSURES),
                features=people,
            ),
            run.params,
            features_history=read_csv(features / "history.csv"),
            graph_links=[{}],
            ratio_history=history,
            gen=np.random.default_rng(0),  # apart from the seed: equal resamples for every cell
        )
        write_json({"seconds": round(seconds, 1), **found.metrics}, out)
        run.say(f"{out.stem}: {seconds:.0f} s; {found.headline}")

"""Take in new exposures without training: new users, new items, and what is drifting."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from stages.main_stage import stage
from stages.shell import PARAMS, ParamsOption, Run, stage_app

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.arrays import Singles
    from pipeline.newcomers.running import Running
    from pipeline.newcomers.update import FoldIn, Updated
    from pipeline.sections import Base

app = stage_app()
Format = Literal["text", "json"]
DIGITS = 6  # of numbers in JSON
RETRAIN = 0.8  # of what was learned; to train again when clearly, by two errors, less is left


@app.command()
def main(
    new: Annotated[Path, typer.Argument(help="Reads: new exposures, .csv, .tsv or .parquet.")],
    state: Annotated[
        Path, typer.Option(help="Reads and writes: users, items and tasks as of now.")
    ] = Path("data/running"),
    data: Annotated[Path, typer.Option(help="Reads: the folder that `dvc repro` filled.")] = Path(
        "data"
    ),
    asked_format: Annotated[
        Format, typer.Option("--format", help="Two lines for people, or one JSON object.")
    ] = "text",
    params: ParamsOption = PARAMS,
) -> None:
    """Take in new exposures: fit vectors to new users, place new items, add up how well it holds.

    Nothing is trained. Afterwards `python -m stages.score --state data/running` knows them.
    """
    with stage("update", params, outputs=[], run_info=None) as run:
        from pipeline.datasets.table_files import read_own
        from pipeline.datasets.tables import read_exposures
        from pipeline.files import sha256
        from pipeline.model_files import read_network, told_of
        from pipeline.models.ratio import RatioNet
        from pipeline.newcomers.running import alone_in
        from pipeline.newcomers.update import update
        from pipeline.text_files import read_history
        from pipeline.training.history import best_row

        run.cpu()
        model = data / "ratio/model.safetensors"
        name = sha256(model) if model.exists() else ""
        with alone_in(state):
            running = _running(state, data, name)
            history = read_history(data / "ratio/history.csv", "held_out_loss")
            text_ids = "user_key" in running.users.column_names
            x_dim, task_dim = running.x.shape[1], running.e.shape[1]
            done, report = update(
                running,
                read_exposures(read_own(new, may_be_empty=True), text_ids=text_ids),
                read_network(RatioNet, model, x_dim=x_dim, task_dim=task_dim),
                base=cast("Base", told_of(model, "base")),
                fold=_fold_in(
                    run, data / "features/deepfm.safetensors", int(told_of(model, "seed"))
                ),
            )
            done.write(state, name)
        kept = best_row(history)
        held_out_loss = float(kept.get("scaled_held_out_loss", kept["held_out_loss"]))
        if asked_format == "json":
            run.say(_as_json(report, done, held_out_loss))
            return
        run.say(_in_words(report))
        run.say(_drift_in_words(done, held_out_loss))


def _running(state: Path, data: Path, model: str) -> "Running":
    """What runs; from the pipeline's own files where nothing came later yet."""
    from pipeline import schemas
    from pipeline.embedding_matrix import embedding_matrix
    from pipeline.errors import PipelineError
    from pipeline.newcomers.running import Running
    from pipeline.storage import read_table

    if Running.is_in(state):
        running, its_model = Running.read(state)
        if its_model != model:
            raise PipelineError(
                f"{state}: belongs to another training than {data}/ratio; delete it, and take in "
                "again whatever `dvc repro` has not seen."
            )
        return running
    tasks = read_table(data / "tasks.parquet", schemas.TASKS)
    embeddings = read_table(data / "ratio/task_embeddings.parquet", schemas.TASK_EMBEDDINGS)
    return Running.of(
        read_table(data / "prepared/users.parquet", schemas.USERS),
        read_table(data / "prepared/items.parquet", schemas.ITEMS),
        read_table(data / "prepared/exposures.parquet", schemas.EXPOSURES),
        read_table(data / "prepared/splits.parquet", schemas.SPLITS),
        read_table(data / "features/users.parquet", schemas.FEATURES),
        tasks,
        embedding_matrix(embeddings, tasks),
    )


def _fold_in(run: Run, features_model: Path, seed: int) -> "FoldIn | None":
    """What gives newcomers their vectors, by draws that follow from the training's seed."""
    from functools import partial

    from pipeline.features.extraction import read_extractor
    from pipeline.features.extractor import OWN_FIELD, Extractor

    extractor = read_extractor(features_model, run.device())
    if not isinstance(extractor, Extractor):
        return extractor.vectors if extractor else None
    if further := [name for name in extractor.fields if name != OWN_FIELD]:
        return partial(_refuse, further)
    return partial(extractor.newcomers_apart, seed=seed)


def _refuse(fields: list[str], users: "pa.Table", exposures: "pa.Table") -> "Singles":
    """What there is instead of vectors where exposures alone do not tell them."""
    from pipeline.errors import PipelineError
    from pipeline.pairs import called

    raise PipelineError(
        f"user {called(users, 'user', 0)} is new ({len(users):,} such users), and "
        f"features.user_fields takes their {', '.join(fields)} besides, which no exposure tells: "
        "put them into the users table and run `dvc repro`."
    )


def _in_words(report: "Updated") -> str:
    return (
        f"{report.pairs:,} new exposures; {report.users:,} new users, {report.folded:,} fitted; "
        f"{report.items:,} new items; {report.tasks:,} tasks that came later in all"
    )


def _drift_in_words(running: "Running", held_out_loss: float) -> str:
    from pipeline.newcomers.update import ENOUGH, skill_left

    left, n = skill_left(running.drift, held_out_loss), running.drift.pairs
    if math.isnan(held_out_loss):
        return "drift: not known, since the training had no held-out pairs to compare with"
    if left is None and n >= ENOUGH:
        return "drift: not known, since the training foresaw held-out pairs no better than chance"
    if left is None:
        return f"drift: needs {ENOUGH} pairs of users who did not train; so far {n:,}"
    share, error = left
    advice = f"train again once it is clearly below {RETRAIN:g}"
    if _clearly_below(share, error):
        advice = (
            "perhaps tastes have changed, or these users had met most of what they would: to train "
            "again, append what came to your exposures, then `dvc repro` (docs/newcomers.md)"
        )
    of_all = f"{share:.2f} ± {error:.2f} of what was learned"
    return f"drift: {of_all} is left, by {n:,} such pairs; {advice}"


def _clearly_below(share: float, error: float) -> bool:
    return share + 2 * error < RETRAIN


def _as_json(report: "Updated", running: "Running", held_out_loss: float) -> str:
    """What was done, and the drift; null where that is not known."""
    from pipeline.newcomers.update import skill_left

    left = skill_left(running.drift, held_out_loss)
    share, error = (round(figure, DIGITS) for figure in left) if left else (None, None)
    told = {
        **vars(report),
        "drift": share,
        "error": error,
        "drift_pairs": running.drift.pairs,
        "retrain": _clearly_below(*left) if left else None,
    }
    return json.dumps(told)


if __name__ == "__main__":
    app()

"""The exposures as one Parquet file or as a folder of parts, by `runtime.partitions`.

All exposures to an item lie in one part, which a hash of the item chooses; rows are sorted within
each. `storage.read_table`, `read_exposures_to` and `read_visible` read either form alike.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays import Ints
from pipeline.errors import PipelineError
from pipeline.files import scratch_folder, telling_of, umask
from pipeline.hashing import PART, hash_of
from pipeline.pairs import ids_of, shown
from pipeline.schemas import EXPOSURES
from pipeline.storage import RowGroups, in_order, write_table


def part_of(items: Ints, partitions: int) -> Ints:
    """The part that the exposures to each of `items` lie in, 0 to partitions - 1."""
    part: Ints = (hash_of(PART, items) % np.uint64(partitions)).astype(np.int64)
    return part


def part_name(part: int) -> str:
    """The file of a part."""
    return f"part-{part:05d}.parquet"


def read_exposures_to(items: Ints, path: Path) -> pa.Table:
    """The exposures to some items, in the order of the whole table, which is never in memory.

    Raises:
        PipelineError: no such table, or another than that of the exposures.
    """
    wanted = pa.array(items, pa.int64())
    return _read(path, lambda group: group.filter(pc.is_in(group.column("item_id"), wanted)))


def read_visible(path: Path) -> pa.Table:
    """The exposures that may be learned from, without ratings and moments.

    In the order of the whole table, which is never in memory.

    Raises:
        PipelineError: no such table, or another than that of the exposures.
    """
    return _read(path, lambda group: shown(group).select(["user_id", "item_id", "held_out"]))


def _read(path: Path, keep: Callable[[pa.Table], pa.Table]) -> pa.Table:
    """What is kept of the exposures, row group by row group."""
    found = pa.concat_tables([keep(group) for group in RowGroups(path, EXPOSURES)])
    return in_order(found, EXPOSURES) if path.is_dir() else found


def write_exposures(exposures: pa.Table, path: Path, partitions: int) -> None:
    """Write exposures as a file, or with more than one partition as a folder of parts."""
    EXPOSURES.check(exposures, path)
    with replacing_parts(path, partitions) as folder:
        if partitions == 1:
            write_table(exposures, folder / part_name(0), EXPOSURES)
            return
        part = part_of(ids_of(exposures, "item_id"), partitions)
        for k in np.unique(part).tolist():
            write_table(exposures.filter(pa.array(part == k)), folder / part_name(k), EXPOSURES)


@contextmanager
def replacing_parts(path: Path, partitions: int) -> Iterator[Path]:
    """Give an empty folder; on success its parts take the place of `path`, as a file if of one.

    On failure all is as it was. A folder cannot be replaced in one step: between two renames there
    is nothing at `path`, never a part of it.

    Raises:
        PipelineError: what is at `path` is a folder of other things, or it cannot be written.
    """
    if path.is_dir() and (other := _other_than_parts(path)):
        raise PipelineError(
            f"{path}: is a folder that holds {other}, so it is not replaced; move it elsewhere."
        )
    with telling_of(path), scratch_folder(path.parent) as folder:
        yield folder
        if partitions == 1:
            _take_place(folder / part_name(0), path)
        else:
            folder.chmod(0o777 & ~umask())
            _take_place(folder, path)


def _other_than_parts(folder: Path) -> str | None:
    names = sorted(one.name for one in folder.iterdir())
    return next((n for n in names if not re.fullmatch(r"part-\d{5,}\.parquet", n)), None)


def _take_place(new: Path, path: Path) -> None:
    if not new.is_dir() and not path.is_dir():
        new.replace(path)
        return
    with scratch_folder(path.parent) as aside:
        old = aside / path.name
        if path.exists():
            path.rename(old)
        try:
            new.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise

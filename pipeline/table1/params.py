"""The params file of experiments/table1: the main pipeline's sections, and what the table adds.

A cell of the table is the main pipeline with a few named changes and a seed: `changes` holds them,
`table` says which of them are crossed. What is set of a density or of a peer is checked by the
stage that reads it: with another of them, the rest has no reason to run again.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Annotated, Any, Self, get_args

from pydantic import Field, ValidationError, model_validator

from pipeline.params import Init, Params
from pipeline.sections import Once, Section, Seed

Names = Annotated[list[str], Field(min_length=1)]
# The inits that need what a stage of its own makes, and where the table lists their rows.
PLACES: Mapping[Init, str] = {"learned": "learned", "graph": "graphs"}


class Table(Section):
    """The rows, and the settings under which each is measured."""

    starts: Names  # of the ratio's task embeddings: rows that need nothing else,
    learned: list[str]  # those that need a pre-embedding model,
    graphs: list[str]  # and those that need a graph
    bases: Names  # p of the ratio
    fields: Names  # features.user_fields
    presets: list[str]  # of the ratio: rows with settings of their own, x among them,
    preset_base: str  # and their base,
    preset_detectors: list[str]  # and detectors on the same x
    seeds: Annotated[list[Seed], Field(min_length=1)]
    densities: list[str]
    recommenders: list[str]
    detectors: list[str]

    @property
    def rows(self) -> list[str]:
        """The ratio's, in the order of the table."""
        return [*self.starts, *self.graphs, *self.learned]


class Table1Params(Params):
    """The whole of experiments/table1/params.yaml."""

    name: str
    once: Once
    table: Table
    changes: dict[str, dict[str, Any]]
    densities: dict[str, dict[str, Any]]  # see `Densities`
    peers: dict[str, dict[str, Any]]  # see `Peers`

    @model_validator(mode="after")
    def _cells_are_valid(self) -> Self:
        table = self.table
        places = {"starts": table.starts, "learned": table.learned, "graphs": table.graphs}
        if table.presets and table.preset_base not in table.bases:
            raise ValueError(f"preset_base {table.preset_base!r} is none of the bases")
        for name in (*table.rows, *table.bases, *table.fields, *table.presets):
            if name not in self.changes:
                raise ValueError(f"table names {name!r}; the changes are {', '.join(self.changes)}")
        for place, rows in places.items():
            for names in product(rows, table.bases, table.fields):
                init = self._init(names)
                fitting = PLACES.get(init, "starts")
                if place != fitting:
                    raise ValueError(f"{names[0]}, of init {init}, belongs in table.{fitting}")
        for preset in table.presets:
            if (init := self._init([preset, table.preset_base])) in PLACES:
                *others, last = (one for one in get_args(Init) if one not in PLACES)
                raise ValueError(
                    f"the preset {preset} has init {init}; presets train without a pre-embedding "
                    f"model and without a graph, so it must be {', '.join(others)} or {last}"
                )
        return self

    @model_validator(mode="after")
    def _every_scorer_has_a_section(self) -> Self:
        table = self.table
        peers = [*table.recommenders, *table.detectors, *table.preset_detectors]
        for names, place in ((table.densities, "densities"), (peers, "peers")):
            known = getattr(self, place)
            for name in names:
                if name not in known:
                    raise ValueError(f"table names {name!r}; the {place} are {', '.join(known)}")
        return self

    def _init(self, names: Sequence[str]) -> Init:
        """The init under the named changes, which must make valid params."""
        try:
            return self.cell(names, seed=0).init
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"]) or "together"
            raise ValueError(f"the changes {', '.join(names)}: {key}: {first['msg']}") from None

    def cell(self, names: Sequence[str], *, seed: int) -> Params:
        """The params of the main pipeline under the named changes, one after another, and a seed.

        Raises:
            ValidationError: the changes together are no valid params.
        """
        content = self.model_dump(include=set(Params.model_fields))
        for name in names:
            content = _changed(content, self.changes[name])
        return Params.model_validate(content | {"seed": seed})


def _changed(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with `changes` in it, sections key by key."""
    changed = dict(content)
    for key, value in changes.items():
        old = content.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            changed[key] = _changed(old, value)
        else:
            changed[key] = value
    return changed

"""The stages of a dvc.yaml, as the tests look at them."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from stages.imports import ROOMS


@dataclass(frozen=True)
class Stage:
    """An entry of a dvc.yaml.

    Attributes:
        name: as `dvc repro` takes it.
        module: what its command runs.
        desc: what `dvc stage list` shows.
        deps: files that it reads, code among them.
        outs: files that it writes, metrics and plots among them.
        cached: whether all of `outs` are in DVC's cache; else they are tracked by git.
    """

    name: str
    module: str
    desc: str
    deps: frozenset[str]
    outs: frozenset[str]
    cached: bool

    @property
    def code(self) -> set[str]:
        return {path for path in self.deps if path.split("/")[0] in ROOMS}

    @property
    def artefacts(self) -> set[str]:
        return {path for path in self.deps if path.split("/")[0] in ("data", "metrics")}


def read_stages(file: Path) -> Iterator[Stage]:
    for name, entry in YAML(typ="safe").load(file)["stages"].items():
        body: Mapping = entry.get("do", entry)
        outs: dict[str, Mapping] = {}
        for one in (o for kind in ("outs", "metrics", "plots") for o in body.get(kind, [])):
            outs |= one if isinstance(one, Mapping) else {one: {}}
        module = re.match(r"python -m ([\w.]+)", body["cmd"])
        assert module, f"{name}: a command other than `python -m` may run another checkout's code"
        yield Stage(
            name=name,
            module=module[1],
            desc=body.get("desc", ""),
            deps=frozenset(body.get("deps", [])),
            outs=frozenset(outs),
            cached=all(options.get("cache", True) for options in outs.values()),
        )

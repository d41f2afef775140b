"""params.yaml read, checked, and handed out in parts.

The whole file is validated whenever a part of it is read, and every error is named in one message.
A stage is handed only what it declares in dvc.yaml, so that no result can depend on a param that
DVC does not track.
"""

import os
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.errors import PipelineError
from pipeline.sections import ParamsFile

Whole = TypeVar("Whole", bound=ParamsFile)


def load_sections(kind: type[Whole], file: Path, *keys: str) -> Whole:
    """Validate a params file and hand out only `keys` (such as "tasks" or "ratio.base") of it.

    Everything else is absent from the result: touching it is an AttributeError. `runtime` is
    always handed out. Under DVC the keys must be among those that the stage declares.

    Raises:
        PipelineError: naming every wrong key, its value and what is allowed; or a key that the
            running stage does not declare.
    """
    params = _validate(kind, _load_yaml(file), file)
    _check_declared(file, keys)
    restricted: Whole = _restrict(params, (*keys, "runtime"))
    return restricted


def load_whole(kind: type[Whole], file: Path) -> Whole:
    """Validate a params file and hand out all of it: for who reads nothing of it but hands it on.

    Raises:
        PipelineError: naming every wrong key, its value and what is allowed.
    """
    return _validate(kind, _load_yaml(file), file)


def _load_yaml(file: Path) -> Any:  # noqa: ANN401 - whatever stands in the file
    try:
        return YAML(typ="safe").load(file)  # DVC's own reader: PyYAML takes 1e-3 for text
    except FileNotFoundError:
        raise PipelineError(
            f"{file}: there is no such file; run from the project's root or name it by --params."
        ) from None
    except OSError as error:
        raise PipelineError(
            f"{file}: cannot be read ({error.strerror}); name another by --params."
        ) from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise PipelineError(f"{file}: is not YAML: {' '.join(str(error).split())}") from error


def _validate(kind: type[Whole], content: object, file: Path) -> Whole:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        lines = []
        for one in error.errors():
            ours = one["type"] == "value_error"  # which names its key where it is about several
            key = ".".join(map(str, one["loc"])) or ("" if ours else "the file")
            message = one["msg"].removeprefix("Value error, ")
            shown = "" if isinstance(one["input"], dict) else f" (found {one['input']!r})"
            lines.append(f"{key}: {message}{shown}" if key else f"{message}{shown}")
        raise PipelineError(f"{file}: " + "; ".join(lines)) from error


def _restrict(section: Any, keys: tuple[str, ...]) -> Any:  # noqa: ANN401 - any section
    if not isinstance(section, BaseModel):
        raise TypeError(f"{keys} is below a plain value")
    parts: dict[str, list[str]] = {}
    for key in keys:
        name, _, rest = key.partition(".")
        parts.setdefault(name, []).append(rest)
    values = {
        name: getattr(section, name)
        if "" in rest
        else _restrict(getattr(section, name), tuple(rest))
        for name, rest in parts.items()
    }
    return type(section).model_construct(_fields_set=set(values), **values)


def _check_declared(file: Path, keys: tuple[str, ...]) -> None:
    address = os.environ.get("DVC_STAGE")  # such as "train", or "experiments/a/dvc.yaml:train@b"
    if address is None:
        return
    pipeline_file, _, stage = address.rpartition(":")
    root = Path(os.environ.get("DVC_ROOT", "."))
    declared = declared_params(root / (pipeline_file or "dvc.yaml"), stage.split("@")[0], file.name)
    undeclared = [key for key in keys if not _covers(declared, key)]
    if undeclared:
        raise PipelineError(
            f"{pipeline_file or 'dvc.yaml'}: stage {stage} reads {', '.join(undeclared)}, "
            f"which its `params:` do not list; add it there, or results go stale in silence."
        )


def _covers(declared: set[str], key: str) -> bool:
    """Whether a key, or a section that it is in, is declared; `${item.x}` is any one part."""
    parts = key.split(".")
    patterns = [re.sub(r"\$\{.*?\}", "*", one) for one in declared]
    wholes = (".".join(parts[:n]) for n in range(1, len(parts) + 1))
    return any(
        fnmatchcase(whole, pattern) and whole.count(".") == pattern.count(".")
        for whole in wholes
        for pattern in patterns
    )


def declared_params(pipeline_file: Path, stage: str, params_name: str = "params.yaml") -> set[str]:
    """The params keys that `stage` of a dvc.yaml declares for the params file of that name."""
    stages: Mapping[str, Any] = _load_yaml(pipeline_file)["stages"]
    entry = stages.get(stage, {})
    keys: set[str] = set()
    for one in entry.get("params", entry.get("do", {}).get("params", [])):
        if isinstance(one, str):
            keys.add(one)
        else:
            for name, listed in one.items():
                if Path(name).name == params_name:
                    keys.update(listed or [])
    return keys

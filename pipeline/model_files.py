"""Networks on disk: safetensors, with shapes and choices in the file's own metadata."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as encode_tensors
from torch import Tensor, nn

from pipeline.errors import PipelineError
from pipeline.files import write_bytes


class Configured(Protocol):
    """A network that knows the arguments that it was made with."""

    config: Mapping[str, object]


Network = TypeVar("Network", bound=nn.Module)
T = TypeVar("T")

MISSING = "Build it with `dvc repro`, or name another."
DAMAGED = "Delete it and run `dvc repro`."
MISFITS = (TypeError, ValueError, LookupError, RuntimeError)  # of a config and its tensors


def under(prefix: str, values: Mapping[str, T]) -> dict[str, T]:
    """The values whose names begin with `prefix`, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in values.items()
        if name.startswith(prefix)
    }


def write_model(tensors: Mapping[str, Tensor], config: Mapping[str, object], path: Path) -> None:
    """Write tensors as safetensors; `config` (shapes, choices) travels in the metadata.

    So does a checksum, under `sha256`: safetensors itself would not notice an altered number.
    """
    contiguous = {name: t.detach().cpu().contiguous() for name, t in sorted(tensors.items())}
    told = {**config, "sha256": _checksum(contiguous, config)}
    # One metadata key only: safetensors writes several in a random order.
    metadata = {"config": json.dumps(told, sort_keys=True)}
    write_bytes(encode_tensors(contiguous, metadata), path)


def read_model(
    path: Path,
    *,
    missing: str = MISSING,
    damaged: str = DAMAGED,
) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Read what `write_model` wrote: (tensors by name, config).

    Args:
        path: the file.
        missing: what to do where it is not there.
        damaged: what to do where it is another, or not as it was written.

    Raises:
        PipelineError: no such file, or one in which something is not as it was written.
    """
    with _opened(path, missing, damaged) as (file, config):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if config.pop("sha256", None) != _checksum(tensors, config):
        raise PipelineError(f"{path}: is damaged (wrong checksum).", damaged)
    return tensors, config


def read_config(path: Path) -> dict[str, object]:
    """Read the config alone of what `write_model` wrote; `read_model` looks at its checksum.

    Raises:
        PipelineError: no such file, or another.
    """
    with _opened(path, MISSING, DAMAGED) as (_, config):
        return config


@contextmanager
def _opened(path: Path, missing: str, damaged: str) -> Iterator[tuple[Any, dict[str, object]]]:
    """The open file and its config; what is wrong within is told as of a file of another kind."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file, dict(json.loads((file.metadata() or {})["config"]))
    except FileNotFoundError:
        raise PipelineError(f"{path}: there is no such file.", missing) from None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise PipelineError(
            f"{path}: is not a model file of this pipeline ({error}).", damaged
        ) from error


def _checksum(tensors: Mapping[str, Tensor], config: Mapping[str, object]) -> str:
    """SHA-256 of tensors, contiguous and on the CPU, with their names, and of a config."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


TOLD = "trained"  # in a network's config, what else is to be known of its training


def write_network(net: nn.Module, path: Path, **told: str) -> None:
    """Write a network that is Configured: its weights, and the arguments it was made with.

    And what is `told` of its training, for `told_of`.
    """
    config = cast(Configured, net).config
    write_model(net.state_dict(), {**config, **({TOLD: told} if told else {})}, path)


def told_of(path: Path, name: str) -> str:
    """What `write_network` was told of the training under `name`.

    Raises:
        PipelineError: no such file, or nothing was told.
    """
    told = read_config(path).get(TOLD)
    if not isinstance(told, dict) or name not in told:
        raise PipelineError(f"{path}: does not tell its {name}; delete it and run `dvc repro`.")
    return str(told[name])


def read_network(kind: type[Network], path: Path, **made_for: int) -> Network:
    """Read a network of class `kind` that `write_network` wrote, in eval mode, on the CPU.

    Args:
        kind: its class.
        path: the file.
        made_for: sizes that the other files ask of it, such as `x_dim`, the width of the vectors.

    Raises:
        PipelineError: no such file, or one that holds another network, or one of other sizes.
    """
    tensors, config = read_model(path)
    config.pop(TOLD, None)
    try:
        net = kind(**cast(dict[str, Any], config))
        net.load_state_dict(tensors)
    except MISFITS as error:
        raise PipelineError(
            f"{path}: holds no {kind.__name__}; delete it and run `dvc repro`."
        ) from error
    for name, wanted in made_for.items():
        if config[name] != wanted:
            raise PipelineError(
                f"{path}: holds a {kind.__name__} of {name} {config[name]}, the other files ask "
                f"for {wanted}; they do not belong together: run `dvc repro`."
            )
    return net.eval()

"""Networks on disk: safetensors, with shapes and choices in the file's own metadata."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as encode_tensors
from torch import Tensor

from pipeline.errors import PipelineError
from pipeline.storage import write_bytes


def write_model(tensors: Mapping[str, Tensor], config: Mapping[str, object], path: Path) -> None:
    """Write tensors as safetensors; `config` (shapes, choices) travels in the metadata."""
    contiguous = {name: t.detach().cpu().contiguous() for name, t in sorted(tensors.items())}
    # One metadata key only: safetensors writes several in a random order.
    metadata = {"config": json.dumps(config, sort_keys=True)}
    write_bytes(encode_tensors(contiguous, metadata), path)


def read_model(path: Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Read what `write_model` wrote: (tensors by name, config)."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            config: dict[str, object] = json.loads((file.metadata() or {})["config"])
    except FileNotFoundError:
        raise PipelineError(
            f"{path}: there is no such file. Build it with `dvc repro`, or name another."
        ) from None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise PipelineError(
            f"{path}: is not a model file of this pipeline ({error}). "
            "Delete it and run `dvc repro`."
        ) from error
    return tensors, config

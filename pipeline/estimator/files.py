"""A fitted detector as numbers and plain settings, and back; no pickle, so no code is run."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from pipeline.embeddings import Projection
from pipeline.estimator.group_moments import GroupMoments
from pipeline.estimator.network import undrawn
from pipeline.estimator.tabular import Kept, Reservoir, Rows
from pipeline.model_files import under

if TYPE_CHECKING:
    from pipeline.estimator.detector import CollaborativeAnomalyDetector

KIND = "CollaborativeAnomalyDetector"
ADVICE = f"Name one that `{KIND}.save` has written."


def fitted_state(
    detector: "CollaborativeAnomalyDetector",
) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Tensors by name, and what is no tensor."""
    arrays = {
        "scaler.mean": detector.scaler_.mean_,
        "scaler.scale": detector.scaler_.scale_,
        "learned": detector.learned_,
    }
    for name, rows in (
        ("train", detector.kept_.train.rows),
        ("valid", detector.kept_.valid.rows),
        ("calibration", detector.kept_.calibration),
    ):
        arrays |= {f"{name}.x": rows.x, f"{name}.task": rows.task}
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    tensors |= {f"net.{name}": value for name, value in detector.net_.state_dict().items()}
    tensors |= {f"projection.{n}": value for n, value in detector.projection_.tensors().items()}
    tensors |= {f"moments.{n}": value for n, value in detector.moments_.tensors().items()}
    names = getattr(detector, "feature_names_in_", None)
    config: dict[str, object] = {
        "kind": KIND,
        "params": {name: _plain(value) for name, value in detector.get_params().items()},
        "calibrated_for": _plain(detector.calibrated_for_),
        "tasks": detector.tasks_.tolist(),
        "columns": None if names is None else names.tolist(),
        "network": detector.net_.config,
        "train": {"seen": detector.kept_.train.seen, "limit": detector.kept_.train.limit},
        "valid": {"seen": detector.kept_.valid.seen, "limit": detector.kept_.valid.limit},
        "history": detector.history_,
    }
    return tensors, config


def _plain(value: object) -> object:
    """A parameter as JSON has it; a generator, which has no name, as None."""
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value)
    if isinstance(value, str | torch.device):
        return str(value)
    return [_plain(one) for one in value] if isinstance(value, Sequence | np.ndarray) else None


def restore(
    detector: "CollaborativeAnomalyDetector",
    tensors: Mapping[str, Tensor],
    config: Mapping[str, object],
) -> None:
    """Give an unfitted detector what `fitted_state` told of one, all but what `_calibrate` derives.

    Raises:
        TypeError, ValueError, LookupError, RuntimeError: these do not hold all of it.
    """
    settings = cast(dict[str, Any], config)
    detector.set_params(**settings["params"] | {"hidden": tuple(settings["params"]["hidden"])})
    detector.calibrated_for_ = settings["calibrated_for"]
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    detector.moments_ = GroupMoments.from_tensors(under("moments.", tensors))
    detector.scaler_ = StandardScaler()
    detector.scaler_.mean_ = arrays["scaler.mean"]
    detector.scaler_.scale_ = arrays["scaler.scale"]
    detector.n_features_in_ = detector.scaler_.n_features_in_ = len(arrays["scaler.mean"])
    if settings["columns"] is not None:
        detector.feature_names_in_ = np.array(settings["columns"], object)
    detector.tasks_ = np.array(settings["tasks"])
    detector.learned_ = arrays["learned"]
    detector.net_ = undrawn(settings["network"]).eval()
    detector.net_.load_state_dict(under("net.", tensors))
    detector.projection_ = Projection.from_tensors(under("projection.", tensors))
    train, valid, calibration = (
        Rows(arrays[f"{name}.x"], arrays[f"{name}.task"])
        for name in ("train", "valid", "calibration")
    )
    detector.kept_ = Kept(
        Reservoir(train, **settings["train"]), Reservoir(valid, **settings["valid"]), calibration
    )
    detector.history_ = settings["history"]

"""The simulation's true latents as user vectors: what no feature extractor can beat.

With them the loss of the features is none, and what is left is the loss of the ratio.
"""

import numpy as np
import pyarrow as pa
import torch

from pipeline.arrays import Bools, Singles
from pipeline.datasets.simulation import world_of
from pipeline.errors import PipelineError
from pipeline.features.scale import Scale
from pipeline.params import Simulation, Source


def true_latents(
    users: pa.Table, visible: Bools, source: Source, simulation: Simulation
) -> tuple[Singles, Scale]:
    """Tastes and log activity of simulated users, standardised over the visible ones.

    Args:
        users: the users table of the simulation.
        visible: (U,) over whom to standardise.
        source: where the users come from.
        simulation: the world they were drawn from.

    Returns:
        x (U, d), and the scale that was applied.

    Raises:
        PipelineError: another source, or users of another world.
    """
    if source != "simulated":
        raise PipelineError(
            f"params.yaml: features.model is latents, but data.source is {source}, whose latents "
            "nobody knows; set features.model to deepfm."
        )
    world = world_of(users, simulation)
    latents = torch.from_numpy(world.latents.astype(np.float32))
    scale = Scale.of(latents[torch.from_numpy(visible)])
    return scale.apply(latents).numpy(), scale

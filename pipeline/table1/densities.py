"""The densities by name, and what can be set of each: the section `densities` of a params file.

Read by the stage that learns them and by no other: with another density, those need not run again.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from pipeline.sections import Count, ParamsFile, Schedule, Section

Density = Literal["gaussian", "maf"]


class Likelihood(Schedule):
    """How a density is trained."""

    weight_decay: Annotated[float, Field(ge=0)]
    noise: Annotated[float, Field(ge=0)]  # on x, see `train_density`


class Gaussian(Likelihood):
    """The conditional Gaussian."""

    task_dim: Count
    hidden: Annotated[list[Count], Field(min_length=1)]


class Maf(Likelihood):
    """The conditional masked autoregressive flow."""

    blocks: Count
    hidden: Count


class Densities(Section):
    """A section a density."""

    gaussian: Gaussian
    maf: Maf


class DensitiesFile(ParamsFile):
    """Table 1's params file as far as the densities go; `Table1Params` checks the rest."""

    model_config = ConfigDict(extra="ignore")

    densities: Densities

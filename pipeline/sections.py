"""What every params file is made of, the main pipeline's and those of the experiments.

A file apart from `params.py`, so that a change of the main pipeline's params leaves alone what has
params of its own.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Base = Literal["exposures", "users"]
Visible = Literal["all", "train"]
Stop = Literal["loss", "auc"]
Scaling = Literal["platt", "none"]
Rate = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # scikit-learn takes no larger ones
SPARK_MASTER = r"^(local(-cluster)?(\[.+\])?|yarn|(spark|k8s)://.+)$"


class Section(BaseModel):
    """A part of a params file: unknown keys and values of the wrong type are errors."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Schedule(Section):
    """How long and how fast a network learns."""

    lr: Positive
    batch_size: Count
    max_epochs: Count
    patience: Count

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 1."""
        return self.lr


class Trunk(Schedule):
    """A network of fully connected layers, each with its dropout rate, and its schedule."""

    hidden: Annotated[list[Count], Field(min_length=1)]
    dropout: list[Rate]

    @model_validator(mode="after")
    def _one_rate_a_layer(self) -> Self:
        if len(self.hidden) != len(self.dropout):
            raise ValueError(
                f"hidden has {len(self.hidden)} layers, dropout {len(self.dropout)} rates"
            )
        return self


class Runtime(Section):
    """Where, on what and in how many parts: nothing that changes a result beyond the last bits.

    But for `processes`: several draw other random numbers than one.
    """

    device: Literal["auto", "cpu", "cuda"]
    threads: Annotated[int, Field(ge=0)]
    deterministic: bool = False
    processes: Count = 1
    deal_out: bool = False
    checkpoint_seconds: Annotated[float, Field(ge=0)]
    engine: Literal["embedded", "spark"] = "embedded"
    spark_master: Annotated[str, Field(pattern=SPARK_MASTER)] = "local[2]"
    partitions: Annotated[int, Field(ge=1, le=99_999)] = 1


# For the stages of an experiment that there is one of: a matrix, as all others are, which is empty
# where there is nothing to do.
Once = Annotated[list[Literal["all"]], Field(min_length=1, max_length=1)]


class ParamsFile(Section):
    """The whole of a params file: the main pipeline's, or an experiment's own."""

    runtime: Runtime

"""The training loop on a model of one weight, with the validation losses written beforehand."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import PipelineError
from pipeline.sections import Schedule
from pipeline.training.history import Row, best_row, kept_epoch, longer_patience, rounded
from pipeline.training.loop import fit
from pipeline.training.session import Session

NAN = float("nan")


class Weight(nn.Module):
    """A weight that learns, and one that must not."""

    def __init__(self) -> None:
        super().__init__()
        self.learned = nn.Parameter(torch.zeros(()))
        self.frozen = nn.Parameter(torch.ones(()), requires_grad=False)


class Script:
    """Trains a Weight towards 1; its validation losses are those of `losses`, epoch by epoch."""

    def __init__(self, losses: Sequence[float]) -> None:
        self.model = Weight()
        self.losses = losses
        self.after: list[float] = []  # the weight at the end of each epoch
        self.reported: list[Row] = []

    @property
    def weight(self) -> float:
        return float(self.model.learned.detach())

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from ((torch.tensor(1.0), torch.tensor(float(k))) for k in range(3))

    def loss(self, target: Tensor, batch: Tensor) -> Tensor:
        assert self.model.training
        return (self.model.learned - target) ** 2 + self.model.frozen + batch

    def validate(self) -> Row:
        assert not self.model.training
        assert not torch.is_grad_enabled()
        self.after.append(self.weight)
        return {"valid_loss": self.losses[len(self.after) - 1], "other": 7.0}

    def run(
        self,
        patience: int,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        **options: Mapping[str, float],
    ) -> list[Row]:
        schedule = Schedule(lr=0.01, batch_size=8, max_epochs=len(self.losses), patience=patience)
        return fit(
            self.model,
            batches=self.batches,
            loss=loss or self.loss,
            validate=self.validate,
            schedule=schedule,
            session=Session(report=self.reported.append),
            **options,
        )


def epochs_run(losses: Sequence[float], *, limit: int, plateau: float = math.inf) -> int:
    return len(Script(losses).run(limit, plateaus={"valid_loss": plateau}))


def test_training_ends_after_so_many_epochs_in_a_row_without_a_lower_loss() -> None:
    assert epochs_run([5, 4, 4.5, 3, 3.5, 3.2, 3.1, 1, 1], limit=3) == 7
    assert epochs_run([5, 6, 1], limit=1) == 2


def test_an_equal_loss_is_no_lower_one() -> None:
    assert epochs_run([5, 5, 5, 1], limit=2) == 3


def test_training_ends_with_the_last_epoch_whatever_the_patience() -> None:
    assert epochs_run([5, 6, 7, 8], limit=9) == 4


def test_epochs_count_only_once_the_loss_has_been_under_the_plateau() -> None:
    """1.39, 1.40 and 1.385 wait for nothing; after 1.37 two epochs do, also above the plateau."""
    resting = [1.386, 1.39, 1.40, 1.385, 1.381]
    assert epochs_run([*resting, 1.38, 1.37, 1.39, 1.375, 1.2], limit=2, plateau=1.381) == 9
    assert epochs_run([*resting, 1.381, 1.381], limit=2, plateau=1.381) == 7


def test_the_weights_of_the_best_epoch_are_kept() -> None:
    script = Script([5, 3, 4, 3.5, 3.2])
    script.run(9)
    assert len(set(script.after)) == 5
    assert script.weight == script.after[1]
    assert not script.model.training


def test_every_epoch_has_a_row_that_is_reported_as_it_ends() -> None:
    script = Script([5, 4])
    history = script.run(9)
    assert script.reported == history
    assert [list(row) for row in history] == [["epoch", "train_loss", "valid_loss", "other"]] * 2
    assert [row["epoch"] for row in history] == [1, 2]
    assert [row["valid_loss"] for row in history] == [5, 4]


def test_the_train_loss_is_the_mean_over_the_batches_of_the_epoch() -> None:
    """Before each step the loss is (w - 1)^2 + 1 + batch; Adam's first steps are lr each."""
    first, _ = Script([5, 4]).run(9)
    expected = np.mean([(1 - 0.01 * k) ** 2 + 1 + k for k in range(3)])
    assert first["train_loss"] == pytest.approx(expected, abs=1e-4)


def test_weights_move_against_the_gradient_unless_they_want_none() -> None:
    script = Script([5] * 300)
    script.run(300)
    assert script.after[0] == pytest.approx(0.03, abs=1e-4)  # three steps of lr
    assert script.after[-1] == pytest.approx(1, abs=1e-3)
    assert float(script.model.frozen) == 1


def test_weight_decay_pulls_towards_zero() -> None:
    """The minimum of (w - 1)^2 + decay / 2 w^2 is 2 / (2 + decay)."""
    script = Script([5] * 300)
    script.run(300, weight_decay=2.0)
    assert script.after[-1] == pytest.approx(0.5, abs=1e-3)


def test_a_batch_whose_loss_is_not_finite_is_named_in_one_line() -> None:
    script = Script([5, 4, 3])

    def loss(target: Tensor, batch: Tensor) -> Tensor:
        blown = len(script.after) == 1 and batch == 1  # the second batch of the second epoch
        return script.loss(target, batch) * (NAN if blown else 1)

    with pytest.raises(PipelineError) as error:
        script.run(9, loss)
    assert str(error.value) == (
        "epoch 2: the loss of batch 2 of 3 is not a finite number (lr 0.01, batch_size 8). "
        "Lower the lr, and look for extreme values among the features."
    )
    assert len(script.reported) == 1


def test_an_epoch_without_a_finite_validation_loss_is_never_the_best() -> None:
    script = Script([NAN, 4, NAN])
    history = script.run(9)
    assert script.weight == script.after[1]
    assert len(history) == 3


def test_no_finite_validation_loss_at_all_is_an_error() -> None:
    with pytest.raises(PipelineError, match="epoch 2: the valid_loss is not a finite number"):
        Script([NAN, NAN]).run(9)


def test_the_best_row_is_the_one_of_lowest_validation_loss() -> None:
    history = Script([5, 3, 4]).run(9)
    assert best_row(history)["epoch"] == 2


@pytest.mark.parametrize(
    ("losses", "limit", "told"),
    [
        ([5, 3, 4], 9, "after epoch 2 of 3, which max_epochs ended"),
        ([5, 4, 3], 1, "after epoch 3 of 3, which max_epochs ended"),
        ([5, 3, 4, 4], 2, "after epoch 2 of 4"),
        ([5, 3, 4, 4, 1], 2, "after epoch 2 of 4"),
    ],
)
def test_it_is_told_which_epoch_is_kept_and_whether_patience_was_left(
    losses: list[float], limit: int, told: str
) -> None:
    schedule = Schedule(lr=0.01, batch_size=8, max_epochs=len(losses), patience=limit)
    assert kept_epoch(Script(losses).run(limit), schedule) == told


@pytest.mark.parametrize(
    ("kept", "slope", "epochs", "longer"),
    [
        (3, 2.85, 13, 30),  # a made-up shop: worth 5 points of AUC when it goes on to epoch 58
        (3, 2.85, 12, None),  # max_epochs ended it, and is told
        (11, 1.68, 21, None),  # the embedded default
        (57, 2.15, 67, None),  # MovieLens 1M
        (3, 1.68, 13, None),
        (6, 2.85, 16, None),
    ],
)
def test_an_early_epoch_of_far_too_small_log_ratios_is_perhaps_a_plateau(
    kept: int, slope: float, epochs: int, longer: int | None
) -> None:
    rows = [
        {"epoch": n, "valid_loss": 1.2 if n == kept else 1.3, "slope": slope}
        for n in range(1, epochs + 1)
    ]
    assert longer_patience(rows, 10) == longer
    written = [{name: str(value) for name, value in row.items()} for row in rows]
    assert longer_patience(written, 10) == longer


@pytest.mark.parametrize("row", [{}, {"slope": 3.0, "valid_miss": 0.3}])
def test_a_plateau_is_told_only_of_scaled_log_ratios_that_the_loss_judges(row: Row) -> None:
    history = [{"epoch": n, "valid_loss": 1.3, **row} for n in range(1, 14)]
    assert longer_patience(history, 10) is None


def test_of_a_loss_that_never_left_chance_no_longer_patience_is_told() -> None:
    """Patience does not count there, and that nothing was learned is told already."""
    history = [{"epoch": n, "valid_loss": 1.3861 + n / 1e5, "slope": 3.0} for n in range(1, 61)]
    assert longer_patience(history, 10) is None


def test_the_share_of_wrong_answers_judges_the_epochs_where_a_row_has_it() -> None:
    misses = iter([0.4, 0.3, 0.35, 0.2, 0.2, 0.21])
    script = Script([5, 3, 4, 6, 7, 8])
    told = script.validate
    script.validate = lambda: {**told(), "valid_miss": next(misses)}
    history = script.run(2)
    assert best_row(history)["epoch"] == 4
    assert script.weight == script.after[3]
    assert len(history) == 6
    written = [{name: str(value) for name, value in row.items()} for row in history]
    assert best_row(written)["epoch"] == "4"


def test_a_history_is_rounded_to_six_digits() -> None:
    assert rounded([{"epoch": 1, "loss": 1.23456789}]) == [{"epoch": 1, "loss": 1.234568}]


def test_each_epoch_has_the_rate_of_its_schedule() -> None:
    class Halving(Schedule):
        def rate(self, epoch: int) -> float:
            return self.lr / 2**epoch

    def moved(schedule: Schedule) -> list[float]:
        script = Script([3.0, 2.0, 1.0])
        fit(
            script.model,
            batches=script.batches,
            loss=script.loss,
            validate=script.validate,
            schedule=schedule,
            session=Session(report=script.reported.append),
        )
        return np.diff([0.0, *script.after]).tolist()

    steady = moved(Schedule(lr=0.001, batch_size=8, max_epochs=3, patience=9))
    halved = moved(Halving(lr=0.001, batch_size=8, max_epochs=3, patience=9))
    expected = [step / 2**epoch for epoch, step in enumerate(steady, start=1)]
    assert halved == pytest.approx(expected, rel=0.05)  # Adam's steps are about the rate


def test_an_epoch_whose_loss_is_no_number_is_never_the_best() -> None:
    rows = [{"epoch": n, "valid_loss": loss} for n, loss in enumerate([math.nan, 3, math.nan, 2])]
    assert best_row(rows)["epoch"] == 3
    assert best_row(rows[:1]) is rows[0]

"""The training loop: epochs until a validation figure no longer falls, the best one kept."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pipeline.errors import PipelineError
from pipeline.sections import Schedule
from pipeline.training.capture import fastest
from pipeline.training.history import Row, judge
from pipeline.training.session import Session
from pipeline.training.snapshot import RandomSource, Snapshot
from pipeline.training.split import Split
from pipeline.training.step import make_step


@dataclass
class Patience:
    """Counts epochs without a new lowest validation loss, or whatever else judges an epoch.

    Attributes:
        limit: this many in a row end the training.
    """

    limit: int
    best: float = math.inf
    waited: int = field(default=0)

    def improved(self, figure: float, plateau: float = math.inf) -> bool:
        """Take note of what judges an epoch; True if it is the lowest so far.

        Epochs count only once it has been under the plateau. A randomly initialised ratio rests at
        2 ln 2 for 5 to 20 epochs under the paper's dropout before it starts to learn.
        """
        if figure < self.best:
            self.best, self.waited = figure, 0
            return True
        if self.best < plateau:
            self.waited += 1
        return False

    @property
    def over(self) -> bool:
        """Whether the training should end."""
        return self.waited >= self.limit


def fit(
    model: nn.Module,
    *,
    batches: Callable[[], Iterable[tuple[Tensor, ...]]],
    loss: Callable[..., Tensor],
    validate: Callable[[], Row],
    schedule: Schedule,
    session: Session,
    plateaus: Mapping[str, float] | None = None,
    weight_decay: float = 0.0,
    random: Mapping[str, RandomSource] | None = None,
    split: Split | None = None,
    capture: bool = False,
) -> list[Row]:
    """Train `model` with Adam; leave it at the epoch that `best_row` tells, in eval mode.

    Args:
        model: whose parameters that want a gradient are learned.
        batches: gives one epoch of batches.
        loss: mean loss of a batch; of several processes, what this one adds to it.
        validate: figures of the model in eval mode, `valid_loss` among them; with `valid_miss`, the
            share of wrong answers, that one judges the epochs.
        schedule: learning rate, patience and the greatest number of epochs.
        session: whom to tell of each epoch, and where to keep the run. On a CPU a run that went on
            from a checkpoint ends bit for bit as an unbroken one. `device` and `ranks` are the
            caller's: the model is where it is, and `split` says who holds what of it.
        plateaus: of the figures that judge; epochs without a better one count only once it has been
            under its own.
        weight_decay: Adam's, which adds this times a weight to its gradient.
        random: by name, every source that `batches` and `loss` draw from; a checkpoint needs them,
            and so do steps that are captured.
        split: how several processes hold the model; as many batches an epoch in each.
        capture: on a CUDA device, replay steps: `loss` then must be of tensors whose values it does
            not ask for. See `capture.Replayed`. Not where rows are dealt out and fetched: how many,
            the processes must ask one another.

    Returns:
        One row an epoch: epoch, train_loss and what `validate` gives.

    Raises:
        PipelineError: a loss that is not a finite number.
    """
    learned = [p for p in model.parameters() if p.requires_grad]
    device = learned[0].device
    adam = _adam(learned, schedule.lr, weight_decay)
    split = split or Split(model)

    capture &= not split.ranks.deal_out
    step = fastest(make_step(loss, adam, split), device, random or {}, capture=capture)
    patience, checkpoint = Patience(schedule.patience), session.checkpoint
    run = _Run(model, adam, patience, random or {}, split)
    if checkpoint is not None and (kept := checkpoint.load()) is not None:
        run.go_on_from(kept)
    while len(run.history) < schedule.max_epochs and not patience.over:
        epoch = len(run.history) + 1
        model.train()
        _set_rate(adam, schedule.rate(epoch))
        losses = torch.stack([step(*batch) for batch in batches()])
        train_loss = _mean_finite(split.ranks.add_(losses), epoch, schedule)
        model.eval()
        with torch.no_grad():
            row: Row = {"epoch": epoch, "train_loss": train_loss, **validate()}
        run.history.append(row)
        if split.ranks.leads:
            session.report(row)
        judging = judge(row)
        if patience.improved(row[judging], (plateaus or {}).get(judging, math.inf)):
            run.best = {name: value.clone() for name, value in model.state_dict().items()}
        if checkpoint is not None:
            checkpoint.save(run.snapshot)
    if not run.best:
        raise _not_finite(f"the {judge(run.history[-1])}", len(run.history), schedule)
    model.load_state_dict(run.best)
    model.eval()  # also where there was no epoch left to go on with
    return run.history


@dataclass
class _Run:
    """What `fit` changes as it goes on."""

    model: nn.Module
    adam: torch.optim.Adam
    patience: Patience
    random: Mapping[str, RandomSource]
    split: Split
    history: list[Row] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)  # weights of the best epoch so far

    def snapshot(self) -> Snapshot:
        """The run as it is."""
        groups: dict[str, Mapping[str, Tensor]] = {
            "model": self._each(self.split.whole, self.model.state_dict()),
            "best": self._each(self.split.whole, self.best),
            "random": {name: source.get_state() for name, source in self.random.items()},
        }
        for number, moments in self.adam.state_dict()["state"].items():
            groups[f"adam {number}"] = self._moments(self.split.whole, number, moments)
        tensors = {f"{g}/{name}": t for g, group in groups.items() for name, t in group.items()}
        return Snapshot(tensors, self.history, self.patience.best, self.patience.waited)

    def go_on_from(self, kept: Snapshot) -> None:
        """Put everything back to where it was when `kept` was taken."""
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "random": {}}
        for path, tensor in kept.tensors.items():
            group, _, name = path.partition("/")
            groups.setdefault(group, {})[name] = tensor
        self.model.load_state_dict(self._each(self.split.own, groups["model"]))
        self.best = self._each(self.split.own, groups["best"])
        for name, source in self.random.items():
            if name in groups["random"]:  # else it was trained by one process, or by several
                source.set_state(groups["random"][name])
        numbers = {int(g.split()[1]): g for g in groups if g.startswith("adam ")}
        moments = {n: self._moments(self.split.own, n, groups[g]) for n, g in numbers.items()}
        self.adam.load_state_dict({**self.adam.state_dict(), "state": moments})
        self.history = kept.history
        self.patience.best, self.patience.waited = kept.lowest, kept.waited

    @staticmethod
    def _each(
        convert: Callable[[str, Tensor], Tensor], state: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        return {name: convert(name, tensor) for name, tensor in state.items()}

    def _moments(
        self, convert: Callable[[str, Tensor], Tensor], number: int, moments: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Adam's of its parameter of a number, which are as wide as the parameter."""
        learned = [name for name, p in self.model.named_parameters() if p.requires_grad]
        return {which: convert(learned[number], moment) for which, moment in moments.items()}


def _adam(learned: list[nn.Parameter], rate: float, weight_decay: float) -> torch.optim.Adam:
    """Adam, on a CUDA device one whose steps can be captured: they read the rate from a tensor."""
    cuda = learned[0].is_cuda
    lr = torch.tensor(rate, device=learned[0].device) if cuda else rate
    return torch.optim.Adam(learned, lr=lr, weight_decay=weight_decay, fused=True, capturable=cuda)


def _set_rate(adam: torch.optim.Adam, rate: float) -> None:
    for group in adam.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def _mean_finite(losses: Tensor, epoch: int, schedule: Schedule) -> float:
    finite = losses.isfinite()
    if not finite.all():
        batch = int(finite.int().argmin()) + 1
        raise _not_finite(f"the loss of batch {batch} of {len(losses)}", epoch, schedule)
    return float(losses.mean())


def _not_finite(what: str, epoch: int, schedule: Schedule) -> PipelineError:
    return PipelineError(
        f"epoch {epoch}: {what} is not a finite number "
        f"(lr {schedule.lr:g}, batch_size {schedule.batch_size}). "
        "Lower the lr, and look for extreme values among the features."
    )

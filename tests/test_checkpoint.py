"""A training that stopped and went on is, bit for bit, one that never stopped."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.conditional import train_conditional
from pipeline.errors import PipelineError
from pipeline.examples import Examples
from pipeline.lock import held
from pipeline.pairs import Pairs
from pipeline.params import load_params
from pipeline.pretraining import pretrain
from pipeline.training import checkpoint as checkpoint_module
from pipeline.training.checkpoint import CheckpointFile
from pipeline.training.deepfm import Interactions, train_deepfm
from pipeline.training.history import Row
from pipeline.training.session import Session, silent
from pipeline.training.snapshot import Checkpoint, Snapshot

ROOT = Path(__file__).parents[1]
PARAMS = load_params(ROOT / "params.yaml", "features", "pretrain", "ratio")
SHORT = {"max_epochs": 6, "batch_size": 100, "patience": 2, "hidden": [8, 8], "dropout": [0.5, 0.3]}
Outcome = tuple[dict[str, bytes], list[Row]]  # weights, history


def seen(users: int = 40, items: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Distinct (user, item) pairs, a quarter of all there are."""
    table = np.random.default_rng(0).random((users, items)) < 0.25
    return np.nonzero(table)


def outcome(weights: dict[str, torch.Tensor], history: list[Row]) -> Outcome:
    return {name: value.numpy().tobytes() for name, value in weights.items()}, history


def examples() -> Examples:
    user, task = seen()
    gen = np.random.default_rng(1)
    x = gen.normal(size=(40, 4)).astype(np.float32)
    return Examples(
        x, Pairs(user, task, gen.random(len(user)) < 0.2), np.arange(25), np.arange(25, 40), 12
    )


def run_deepfm(
    report: Callable[[Row], None], checkpoint: Checkpoint | None, **changed: object
) -> Outcome:
    user, item = (torch.from_numpy(rows) for rows in seen())
    data = Interactions(user, item, torch.arange(40)[:, None], torch.ones(12, 1))
    small = SHORT | {"f_dim": 4, "dropout": 0.3, "lr": 0.05}
    params = PARAMS.features.model_copy(update=small | changed)
    net, history = train_deepfm(
        data, params, seed=3, session=Session(report=report, checkpoint=checkpoint)
    )
    assert not net.training
    return outcome(net.state_dict(), history)


def run_out_of_patience(report: Callable[[Row], None], checkpoint: Checkpoint | None) -> Outcome:
    weights, history = run_deepfm(report, checkpoint, lr=0.3, max_epochs=50, patience=3)
    assert len(history) < 50
    return weights, history


def run_pretrain(report: Callable[[Row], None], checkpoint: Checkpoint | None) -> Outcome:
    made = pretrain(
        examples(),
        np.array([1, 4, 7, 8]),
        base="exposures",
        params=PARAMS.pretrain.model_copy(update=SHORT),
        seed=3,
        session=Session(report=report, checkpoint=checkpoint),
    )
    return outcome(made.net.state_dict(), made.history)


def run_train(
    report: Callable[[Row], None], checkpoint: Checkpoint | None, **changed: object
) -> Outcome:
    made = train_conditional(
        examples(),
        np.random.default_rng(2).normal(size=(12, 3)).astype(np.float32),
        params=PARAMS.ratio.model_copy(update=SHORT | changed),
        seed=3,
        session=Session(report=report, checkpoint=checkpoint),
    )
    return outcome(made.net.state_dict() | {"e": torch.from_numpy(made.e)}, made.history)


def run_frozen(report: Callable[[Row], None], checkpoint: Checkpoint | None) -> Outcome:
    return run_train(report, checkpoint, freeze_e=True)


def run_grid(report: Callable[[Row], None], checkpoint: Checkpoint | None) -> Outcome:
    return run_train(report, checkpoint, mode="grid", grid_tasks=3)


def stopping_at(epoch: int) -> Callable[[Row], None]:
    """Stops the training in the middle of what follows `epoch`, before that is kept."""

    def report(row: Row) -> None:
        if row["epoch"] == epoch + 1:
            raise KeyboardInterrupt

    return report


def at(path: Path, told: list[str] | None = None, seconds: float = 0) -> CheckpointFile:
    return CheckpointFile(path, seconds=seconds, tell=[].append if told is None else told.append)


@pytest.mark.parametrize(
    "run", [run_deepfm, run_out_of_patience, run_pretrain, run_train, run_frozen, run_grid]
)
def test_a_training_that_went_on_equals_an_unbroken_one(
    tmp_path: Path, run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_module, "LEAST_WORK", 0)  # keep every epoch
    unbroken = run(silent, None)
    for epoch in range(1, len(unbroken[1])):
        path = tmp_path / f"{epoch}.safetensors"
        with at(path) as kept, pytest.raises(KeyboardInterrupt):
            run(stopping_at(epoch), kept)
        told: list[str] = []
        with at(path, told) as kept:
            assert run(silent, kept) == unbroken
        assert told == [f"goes on after epoch {epoch}, which an earlier run reached"]


def test_a_training_stopped_after_its_last_epoch_trains_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_module, "LEAST_WORK", 0)
    with at(tmp_path / "kept") as kept:
        unbroken = run_out_of_patience(silent, kept)
    epochs: list[Row] = []
    with at(tmp_path / "kept") as kept:
        assert run_out_of_patience(epochs.append, kept) == unbroken
    assert epochs == []


def test_the_library_writes_nothing_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_train(silent, None)
    assert list(tmp_path.iterdir()) == []


def snapshot(**changed: torch.Tensor) -> Snapshot:
    tensors = {"model/w": torch.arange(6.0).reshape(2, 3), "adam 0/step": torch.tensor(7.0)}
    return Snapshot(tensors | changed, [{"epoch": 1, "valid_loss": float("nan")}], 0.25, 1)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "text": lambda _: b"not a checkpoint\n",
    "cut": lambda content: content[:-1],
    "half of zeros": lambda content: content[: len(content) // 2] + bytes(len(content) // 2),
    "a weight changed": lambda content: content[:-20] + bytes([content[-20] ^ 1]) + content[-19:],
    "a figure changed": lambda content: content.replace(b"valid_loss", b"valid_lass"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_a_warning_and_a_fresh_start(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "kept"
    with at(path) as kept, pytest.raises(KeyboardInterrupt):
        run_pretrain(stopping_at(2), kept)
    content = path.read_bytes()
    path.write_bytes(DAMAGE[damage](content))
    assert path.read_bytes() != content
    told: list[str] = []
    with at(path, told) as kept:
        assert run_pretrain(silent, kept) == run_pretrain(silent, None)
    assert told == [f"warning: {path} is damaged; the training starts afresh"]


def test_no_changed_byte_goes_unnoticed(tmp_path: Path) -> None:
    """Whatever byte is changed, the checkpoint is refused, or reads as it was written."""
    path = tmp_path / "kept"
    at(path).save(snapshot)
    content = path.read_bytes()
    refused = 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        found = at(path).load()
        refused += found is None
        if found is not None:
            assert str(found) == str(snapshot())
    assert refused > 0.9 * len(content)


@given(st.binary(max_size=400))
def test_any_bytes_at_all_are_refused_in_peace(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "kept"
    path.write_bytes(content)
    assert at(path).load() is None


def test_a_checkpoint_under_the_name_of_another_is_refused(tmp_path: Path) -> None:
    at(tmp_path / "a").save(snapshot)
    (tmp_path / "a").rename(tmp_path / "b")
    assert at(tmp_path / "b").load() is None


def test_snapshots_are_kept_no_more_often_than_asked_and_no_longer_than_a_20th_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(checkpoint_module.time, "monotonic", lambda: now)
    taken: list[float] = []

    def take() -> Snapshot:
        nonlocal now
        taken.append(now)
        now += cost
        return snapshot()

    kept, cost = at(tmp_path / "kept", seconds=5), 0.1
    for _ in range(20):
        now += 1
        kept.save(take)
    assert taken[0] == 105
    assert ((np.diff(taken) >= 5) & (np.diff(taken) < 6.5)).all()
    cost = 1.0
    taken.clear()
    for _ in range(80):
        now += 1
        kept.save(take)
    assert len(taken) == 4
    assert ((np.diff(taken) >= 1 + 20) & (np.diff(taken) < 1 + 21.5)).all()


def test_a_second_training_stops_and_names_the_first(tmp_path: Path) -> None:
    with at(tmp_path / "kept.safetensors") as first:
        first.save(snapshot)
        with (
            pytest.raises(PipelineError, match=f"process {os.getpid()} trains the same model"),
            at(tmp_path / "kept.safetensors"),
        ):
            pass
    with at(tmp_path / "kept.safetensors") as third:
        assert third.load() is not None
        third.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_holder_holds_no_longer(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from pipeline.lock import held
with held(Path({str(tmp_path / "lock")!r}), "sleeps"):
    print("held", flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(PipelineError, match=f"process {holder.pid} sleeps"),
            held(tmp_path / "lock", "sleeps"),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with held(tmp_path / "lock", "sleeps"):
        pass


def test_a_lock_removed_between_its_opening_and_its_locking_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next one would lock a new file of that name, and two would hold it."""
    path = tmp_path / "lock"
    flock = fcntl.flock

    def too_late(file: IO[str], operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", too_late)
    with (
        held(path, "is at it"),
        pytest.raises(PipelineError, match="is at it"),
        held(path, "is at it"),
    ):
        pass


def test_parts_that_a_killed_writer_left_are_swept_away(tmp_path: Path) -> None:
    (tmp_path / ".kept.safetensors.x1y2.part").write_bytes(b"half")
    (tmp_path / ".other.safetensors.x1y2.part").write_bytes(b"half")
    with at(tmp_path / "kept.safetensors"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".other.safetensors.x1y2.part"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(PipelineError, match=r"file/kept.lock: cannot be written \(.+\)"),
        at(tmp_path / "file/kept.safetensors"),
    ):
        pass

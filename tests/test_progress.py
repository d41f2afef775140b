"""Progress where stderr is no terminal: now and then a plain line."""

import pytest

from stages import progress
from stages.progress import EpochReporter


def test_a_line_comes_at_most_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with EpochReporter("train", max_epochs=20) as report:
        for epoch in range(1, 7):
            now += 4
            report(
                {"epoch": epoch, "train_loss": 1.5, "valid_loss": 1.25, "slope": 2.5}
                | {"held_out_loss": float("nan")}
            )
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "train: epoch 3 of at most 20, train_loss 1.5000, valid_loss 1.2500, "
        "4.0 s an epoch, at most 68 s left",
        "train: epoch 6 of at most 20, train_loss 1.5000, valid_loss 1.2500, "
        "4.0 s an epoch, at most 56 s left",
    ]


def test_a_silent_one_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    with EpochReporter("train", max_epochs=20, silent=True) as report:
        report({"epoch": 1, "train_loss": 1.5})
    assert capsys.readouterr() == ("", "")

"""Scoring by hand (docs/score.md): verdicts, why, what users and items are called."""

ALPHA = 0.05  # false-alarm rate of the verdicts, unless another is asked for

"""Scoring by hand (docs/score.md): verdicts, why, what users and items are called."""

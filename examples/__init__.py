"""Worked examples; docs/ shows what they print."""

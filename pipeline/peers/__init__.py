"""Scorers that a practitioner would use instead, a file each, on the same tables.

Each is a function of the `Evidence` and of the rows of the users to score; it gives their scores
(M, U), HIGH = common, LOW = fresh, which `evaluate` measures as it does ours.
"""

"""Experiments on top of the pipeline: each runs it many times and keeps what came of it."""

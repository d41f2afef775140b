"""Stages of the image experiments, experiments/images/dvc.yaml."""

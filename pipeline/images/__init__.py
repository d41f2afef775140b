"""The image experiments (docs/images.md): tasks, Algorithm 1, one model a task, tables."""

"""The loop that learns, and what it goes through: epochs, shards, checkpoints."""

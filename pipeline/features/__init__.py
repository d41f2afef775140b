"""From tables to user vectors: DeepFM, an SVD, ALS, one's own, the simulation's truth."""

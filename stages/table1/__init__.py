"""The stages of experiments/table1: main stages under a cell's params, and its own scorers."""

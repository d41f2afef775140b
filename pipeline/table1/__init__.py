"""Table 1 of the paper: its params, its lines beside the paper's own, its figure."""

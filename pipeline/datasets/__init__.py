"""Sources of exposures: one file a source, all giving the same three tables."""

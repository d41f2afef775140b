"""After training: exposures, users and items that come later (docs/newcomers.md)."""

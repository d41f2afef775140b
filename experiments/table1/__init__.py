"""Table 1 of the paper, whole, beside what a practitioner would use instead."""

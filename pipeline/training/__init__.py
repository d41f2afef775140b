"""Drawing pairs, and the loop that learns from them."""

"""What encoding yields, in NumPy: vectors, tokens, attention, free-text relations; no torch."""

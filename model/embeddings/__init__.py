"""Results of encoding, in NumPy: vectors, tokens, attention, free-text relations; no torch."""

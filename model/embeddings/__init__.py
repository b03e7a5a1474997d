"""Results of encoding in NumPy, without torch: vectors, tokens, attention and free-text relations."""

"""Storage of a generation: the immutable files of one state of an index."""

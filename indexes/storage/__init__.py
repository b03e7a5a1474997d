"""A generation on disk: the immutable files of one build of an index."""

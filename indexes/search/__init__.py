"""Questions answered from a snapshot: retrieval, pairs, free-text relations, filters and ranking."""

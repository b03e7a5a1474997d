"""Search in a snapshot: retrieval, pairs, free-text relations, filters and diversification."""

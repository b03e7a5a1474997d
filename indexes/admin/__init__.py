"""Operating an index from outside: verify, statistics, backup."""

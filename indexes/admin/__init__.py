"""Administration of an index that may be in use: verification, statistics, compaction, backup and restore."""

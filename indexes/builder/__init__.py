"""Creation of generations: build from items, compaction of changes, addition and removal of relations."""

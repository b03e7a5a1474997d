"""Making generations: built from items, compacted with changes, revised for other relations."""

"""Data preparation: readers of raw files, relations derived from logs, and safe loading of pictures."""

"""The contents of an index at one moment: a generation and the changes made since."""

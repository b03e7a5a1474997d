"""Cells of raw tables as values: texts, lists, numbers, dates, and the type of each attribute column."""

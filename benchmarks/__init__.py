"""Benchmarks that compare rcml with a reference in the same run; start one with `python -m benchmarks.NAME`."""

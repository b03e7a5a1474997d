"""Benchmarks that measure ratios to a reference in one run; start each with `python -m benchmarks.NAME`."""

"""Ratios measured side by side in one run; each module runs as `python -m benchmarks.NAME`."""

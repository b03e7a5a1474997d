"""Evaluation: sampling of queries and claims, metrics, and the report."""

"""Evaluation: sampled questions, their metrics, and the report."""

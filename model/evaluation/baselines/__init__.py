"""Baselines without a network: what their figures are shows how much of the task needs a network at all."""

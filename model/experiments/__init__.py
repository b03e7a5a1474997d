"""Experiments: studies of many trainings, such as ablations and sweeps of one option."""

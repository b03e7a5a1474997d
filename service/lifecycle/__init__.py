"""Engines over time: opened, swapped, compared in shadow, extended with relations."""

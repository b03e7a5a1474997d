"""Tests that run the examples of the documentation."""

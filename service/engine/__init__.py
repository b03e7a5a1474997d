"""Answers from an index and a network; no HTTP."""

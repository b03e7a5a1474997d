"""Inference engines of the towers: their precision and runtime, CUDA graphs, and the number of CPU threads."""

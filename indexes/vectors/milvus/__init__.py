"""Vectors on a Milvus server: one collection for each view."""

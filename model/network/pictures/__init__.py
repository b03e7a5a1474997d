"""Decoding of pictures for the image tower: one picture, many by a pool of workers, and a cache on disk."""

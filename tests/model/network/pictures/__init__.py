"""Tests of `model.network.pictures`."""

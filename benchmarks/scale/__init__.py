"""Extrapolation of memory, disk, build time and queries per second to catalogues that no machine here can hold."""

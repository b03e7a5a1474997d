"""Torch-free parts of a checkpoint that serving needs: relations, validity head, calibration and quality figures."""

"""The parts of a checkpoint that serving needs, without torch: relations, validity head, calibration, quality."""

"""What training leaves and serving needs, without torch: relations, validity head, calibration, quality."""

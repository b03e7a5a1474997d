"""What follows training: the validity head, the calibration, warnings, and the model card."""

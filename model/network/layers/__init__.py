"""Linear layers for inference on a CPU that replace those of the towers."""

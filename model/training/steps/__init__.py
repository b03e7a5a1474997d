"""Training steps: what runs on the device while the host prepares the next step."""

"""Life cycle of engines: opening, swapping, shadow runs, and adding relations."""

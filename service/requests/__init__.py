"""From a request to what the engine is asked: bodies read, images fetched, changes made."""

"""The encoder: a trained network that turns items and relations into vectors."""

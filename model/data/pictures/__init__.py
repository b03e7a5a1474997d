"""Pictures of items: opened carefully, scaled, and fetched from addresses."""

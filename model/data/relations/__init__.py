"""Relations from an interaction log: clusters of users, their descriptions, and related pairs of items."""

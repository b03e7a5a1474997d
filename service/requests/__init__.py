"""Processing of requests before the engine: reads bodies, fetches pictures, and prepares queries and changes."""

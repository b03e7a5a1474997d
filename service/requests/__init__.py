"""Request processing before the engine is called: reading bodies, fetching pictures, preparing queries and changes."""

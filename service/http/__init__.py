"""HTTP itself: connections and their limits, rules of routes, the OpenAPI document."""

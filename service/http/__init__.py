"""HTTP layer: connections and their limits, route rules, and the OpenAPI document."""

"""HTTP itself: connections and their limits, problem documents, the OpenAPI document, rules of routes."""

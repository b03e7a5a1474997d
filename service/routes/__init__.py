"""HTTP endpoints, one module per resource. Each route turns a request into an engine call and the result into JSON."""

"""Request and response schemas, one module per group of endpoints. The OpenAPI document is generated from them.

The schemas do not depend on the index, so `service/client` can parse responses without importing it.
"""

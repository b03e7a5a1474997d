"""What requests and answers look like, field by field, one file a group; the OpenAPI document is made from these.

They know nothing of the index, so that `service/client` can read answers by them without loading it.
"""

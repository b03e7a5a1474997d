"""Errors of the service, their kinds, and the problem documents (RFC 9457) that report them to clients."""

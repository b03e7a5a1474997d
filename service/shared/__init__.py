"""Memory and messages that the workers of one server share; see docs/architecture.md."""

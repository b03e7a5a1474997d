"""Query engine over an index and a network, independent of HTTP."""

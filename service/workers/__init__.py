"""Parent of the workers of a server: it starts and replaces them, and decides which version they serve."""

"""Network in a process of its own, which any number of server processes ask over a Unix socket."""

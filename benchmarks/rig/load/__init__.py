"""Load on a server over HTTP: requests, the processes that send them, and the server that answers."""

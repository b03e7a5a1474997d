"""HTTP service: the `rcml` command, the engine that answers requests, and the API routes.

The engine contains no HTTP code. The routes import neither torch nor FAISS.
"""

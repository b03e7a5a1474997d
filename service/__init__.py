"""Answer HTTP: the command `rcml`, the engine that answers, and the routes that speak for it.

`engine.py` knows no HTTP; the routes know neither torch nor FAISS.
"""

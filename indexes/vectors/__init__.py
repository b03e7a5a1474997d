"""Vector backends: one contract, FAISS files and Milvus collections behind it."""

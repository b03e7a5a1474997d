"""Vector backends: FAISS files and Milvus collections that implement one contract."""

"""Parts shared by the benchmarks: timing, load, synthetic vectors, a synthetic shop, and ViT-B/32."""

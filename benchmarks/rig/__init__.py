"""What several benchmarks measure with: clocks, load, made vectors, a shop, ViT-B/32."""

"""Large catalogues: sizes and speeds on paper, and one that is built and served on this machine."""

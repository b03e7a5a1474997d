"""The relation-conditioned network: pretrained towers with token outputs, and relation-guided attention over them."""

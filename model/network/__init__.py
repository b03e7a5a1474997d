"""The network: pretrained towers with token outputs, and the relation-guided attention over them."""

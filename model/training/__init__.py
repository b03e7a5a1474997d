"""Training: batches of pairs, loss, distributed gradients, and the training loop."""

"""Training: batches of pairs, the loss, gradients over processes, and the loop that uses them."""

"""Training objectives: the loss of RCML and the losses of its rivals, on the vectors of a batch."""

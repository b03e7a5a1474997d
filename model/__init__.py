"""Training and evaluation of the encoder: raw logs -> relations -> training -> checkpoint -> evaluation.

Importing this package loads no heavy packages. Its own modules and its packages `checkpoint`, `data` and `embeddings`
do not import torch, so `indexes` can read the artifacts of `model` without loading torch.
"""

__version__ = "0.2.0"
"""Version of rcml. It is defined here so that the package also works from a source tree without being installed."""

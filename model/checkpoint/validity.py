"""Relation-validity head (section 4.3.3): the probability that a given relation holds between two items.

The head is a small MLP over frozen vectors. `model/training/validity_fit.py` fits it after training, and plain NumPy
evaluates it, so the service does not need torch. Its features are symmetric in the two items: (A, B) and (B, A) give
the same result.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int
from numpy import ndarray
from safetensors.numpy import load_file, save_file

from model.plain_file import decoding

VALIDITY_FILE = "validity.safetensors"

VALIDITY_THRESHOLD = 0.5
"""Minimum calibrated probability at which a relation is reported to hold."""


@dataclass(frozen=True)
class PairVectors:
    """Unit vectors of the two items of each pair under a relation, and the vector of the relation itself."""

    text_a: Float32[ndarray, "pairs dim"]
    image_a: Float32[ndarray, "pairs dim"]
    text_b: Float32[ndarray, "pairs dim"]
    image_b: Float32[ndarray, "pairs dim"]
    relation: Float32[ndarray, "pairs dim"]

    def features(self) -> Float32[ndarray, "pairs features"]:
        """Compute the input features of each pair: those of its items, then those of its relation."""
        return np.hstack([self.item_features(), self.relation_features()])

    def item_features(self) -> Float32[ndarray, "pairs item_features"]:
        """Compute the features of the two items of each pair.

        The features are the element-wise products of the two items' vectors (text with text, image with image, and the
        mean of both cross-modal products), and the cosine that each product sums to.
        """
        cross = (self.text_a * self.image_b + self.image_a * self.text_b) / 2
        products = (self.text_a * self.text_b, self.image_a * self.image_b, cross)
        cosines = [product.sum(axis=1, keepdims=True) for product in products]
        # A component of a unit vector is about 1/sqrt(dim). Scaling it to about 1 gives all features the same initial
        # weight.
        scale = np.float32(self.relation.shape[1])
        return np.hstack([*(product * scale for product in products), *cosines])

    def relation_features(self, rows: Int[ndarray, " rows"] | None = None) -> Float32[ndarray, "rows dim"]:
        """Compute the features of the relations of the pairs at `rows` (None: all): their vectors, scaled."""
        vectors = self.relation if rows is None else self.relation[rows]
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(unit * np.sqrt(np.float32(vectors.shape[1])))


@dataclass(frozen=True)
class ValidityHead:
    """MLP with one hidden layer of ReLU units and log-odds as its output."""

    weight_1: Float32[ndarray, "features hidden"]
    bias_1: Float32[ndarray, " hidden"]
    weight_2: Float32[ndarray, " hidden"]
    bias_2: Float32[ndarray, ""]

    def log_odds(self, pairs: PairVectors) -> Float32[ndarray, " pairs"]:
        """Compute the log-odds that the relation holds for each pair; `Calibration` converts them to probabilities."""
        hidden = np.maximum(pairs.features() @ self.weight_1 + self.bias_1, 0.0)
        return np.asarray(hidden @ self.weight_2 + self.bias_2)

    def probability(self, pairs: PairVectors) -> Float32[ndarray, " pairs"]:
        """Compute the uncalibrated probability in [0, 1] that the relation holds for each pair."""
        return np.asarray(0.5 * (1.0 + np.tanh(self.log_odds(pairs) / 2)), dtype=np.float32)

    def save(self, folder: Path) -> None:
        """Write `validity.safetensors` into `folder`."""
        arrays = {name: np.atleast_1d(value) for name, value in vars(self).items()}
        save_file(arrays, folder / VALIDITY_FILE)

    @classmethod
    def load(cls, folder: Path) -> "ValidityHead":
        """Read `validity.safetensors` in `folder`.

        Raises:
            ArtifactError: the file is damaged.
        """
        path = folder / VALIDITY_FILE
        with decoding(path):
            arrays = load_file(path)
            return cls(arrays["weight_1"], arrays["bias_1"], arrays["weight_2"], arrays["bias_2"][0])

"""What encoding items yields, and what a thing that encodes them must offer; free of torch.

`model.encoder.Encoder` is the one that exists. `indexes` builds from any, and the service puts new texts
to any, so both are tested with an encoder that needs no network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from .records import Relation, View

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Encoding:
    """Unit vectors of some items under every relation, one set for each modality."""

    text: Float32[ndarray, "items relations dim"]
    image: Float32[ndarray, "items relations dim"]

    @property
    def average(self) -> Float32[ndarray, "items relations dim"]:
        """The mean of the two unit vectors, renormalised; zero where the two cancel out."""
        total = self.text + self.image
        length = np.linalg.norm(total, axis=-1, keepdims=True)
        return np.asarray(total / np.maximum(length, 1e-6), dtype=np.float32)

    def view(self, view: View) -> Float32[ndarray, "items relations dim"]:
        """The vectors of one view."""
        if view is View.AVERAGE:
            return self.average
        return self.text if view is View.TEXT else self.image


class ItemEncoder(Protocol):
    """A trained network, ready to encode items under the relations it was trained on."""

    @property
    def relations(self) -> tuple[Relation, ...]:
        """The relations of the second axis of everything encoded, the intra-sample one first."""

    @property
    def dim(self) -> int:
        """Length of every vector."""

    @property
    def device(self) -> str:
        """Where it computes, in words."""

    def encode_items(self, texts: Sequence[str], pictures: Sequence["Image"]) -> Encoding:
        """Encode items given by one text and one picture each."""

    def encode_texts(self, texts: Sequence[str]) -> Float32[ndarray, "texts relations dim"]:
        """Encode texts that have no picture; unit rows."""

"""Systems with one tower per modality: the relation changes the text, but not the picture (section 4.3.1)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy import ndarray
from torch import Tensor

from model.embeddings.encoding import Encoding, unit_rows
from model.records import Relation

from .concatenation import Concatenation
from .system import Passes

Input = TypeVar("Input")

BATCH = 128
"""Number of inputs encoded in one batch."""


class TextTower(Protocol):
    """Text tower together with its tokenizer."""

    @property
    def dim(self) -> int:
        """Length of the vectors."""

    @property
    def room(self) -> int:
        """Number of tokens that the tower reads, without special tokens."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, without special tokens."""

    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
        """Encode one batch; longer texts are truncated at the end."""


class ImageTower(Protocol):
    """Image tower together with its image processor."""

    def encode_pictures(self, paths: Sequence[Path]) -> Float[Tensor, "pictures dim"]:
        """Decode and encode one batch."""


class TowerSystem:
    """System of a text tower and, unless it is text-only, an image tower; see `System`.

    Each text is encoded once per relation, behind the description of the relation. Each picture is encoded once.
    """

    def __init__(self, name: str, text: TextTower, image: ImageTower | None, parameters: int) -> None:
        self.name = name
        self.dim = text.dim
        self.parameters = parameters
        self._text = text
        self._image = image
        self._concatenation = Concatenation(text.count_tokens, text.room)

    def passes(self, items: int, relations: int) -> Passes:
        """Return one text pass per item and relation, and one image pass per item."""
        return Passes(items * relations, 0 if self._image is None else items)

    def encode(
        self, texts: Sequence[str], pictures: Sequence[Path | None], relations: Sequence[Relation]
    ) -> Encoding:
        """Encode items into unit vectors under each relation; see `System.encode`."""
        joined = self._concatenation.join(texts, [relation.description for relation in relations])
        text = self._vectors([one or None for row in joined for one in row], self._text.encode_texts)
        if self._image is None:
            image = np.zeros((len(texts), self.dim), np.float32)
        else:
            image = self._vectors(pictures, self._image.encode_pictures)
        shape = (len(texts), len(relations), self.dim)
        return Encoding(text.reshape(shape), np.broadcast_to(image[:, None], shape).copy())

    def _vectors(
        self, inputs: Sequence[Input | None], encode: Callable[[Sequence[Input]], Float[Tensor, "batch dim"]]
    ) -> Float32[ndarray, "inputs dim"]:
        """Encode the inputs in batches; the vector of a missing input is zero."""
        vectors = np.zeros((len(inputs), self.dim), np.float32)
        rows = [row for row, one in enumerate(inputs) if one is not None]
        rows.sort(key=lambda row: len(str(inputs[row])))  # texts of similar length need little padding
        for first in range(0, len(rows), BATCH):
            batch = rows[first : first + BATCH]
            with torch.inference_mode():
                found = encode([one for row in batch if (one := inputs[row]) is not None])
            vectors[batch] = unit_rows(found.float().cpu().numpy(), 1e-12)
        return vectors

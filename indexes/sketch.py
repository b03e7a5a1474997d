"""Tokens in few components: enough to tell which items are worth scoring under a relation in words.

    tokens/
      text.sketch.npy image.sketch.npy   float32 [tokens, components], rows as in the tokens themselves
      text.basis.npy image.basis.npy     float32 [dim, components]: the principal directions B of the tokens

With H = C B^T, nearly, all of eq. 4-6 can be had from C: the relevance of a token is q H^T = (q B) C^T, and what the
pooled tokens become in the joint space is p B^T (W_V^T W_o). So all items are estimated at a fraction of the cost of
reading their tokens; what is worth it is then scored from the tokens. Measured in docs/decisions.md.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from model.encoding import TokenRows, WordedRelation, pooled
from model.records import View

COMPONENTS = 32
"""Of 128, the 32 first hold 99 % of what is in the tokens; of 100 items estimated best, the ten best are."""

SAMPLE = 20_000
"""Tokens from which the directions are found."""

CHUNK = 65_536
"""Tokens taken to their components together."""


@dataclass(frozen=True)
class Sketch:
    """The tokens of all items in one modality."""

    states: Float32[ndarray, "tokens components"]
    starts: Int64[ndarray, " bounds"]
    basis: Float32[ndarray, "dim components"]

    @classmethod
    def open(cls, folder: Path, name: str, starts: Int64[ndarray, " bounds"]) -> "Sketch":
        """What `write_sketch` wrote, mapped into memory."""
        states = np.load(folder / f"{name}.sketch.npy", mmap_mode="r", allow_pickle=False)
        return cls(states, starts, np.load(folder / f"{name}.basis.npy", allow_pickle=False))


class Estimates:
    """Vectors of all items under one relation in words, as far as a sketch tells; unit length, or zero."""

    def __init__(self, relation: WordedRelation, text: Sketch, image: Sketch) -> None:
        parts = []
        for sketch in (text, image):
            inner = pooled(sketch.states, sketch.starts, relation.query @ sketch.basis)
            outer = sketch.basis.T @ relation.output
            length = np.sqrt(np.einsum("ic,ic->i", inner @ (outer @ outer.T), inner))[:, None]
            parts.append((inner / np.maximum(length, 1e-12), outer))
        (self._text, self._text_outer), (self._image, self._image_outer) = parts
        squares = [np.any(inner, axis=1).astype(np.float32) for inner, _ in parts]
        both = np.einsum("ic,ic->i", self._text @ (self._text_outer @ self._image_outer.T), self._image)
        self._length = np.sqrt(np.maximum(squares[0] + squares[1] + 2 * both, 1e-12))

    def scores(self, view: View, query: Float32[ndarray, " dim"]) -> Float32[ndarray, " items"]:
        """Cosines with a unit query, estimated."""
        if view is View.TEXT:
            scores = self._text @ (self._text_outer @ query)
        elif view is View.IMAGE:
            scores = self._image @ (self._image_outer @ query)
        else:
            total = self._text @ (self._text_outer @ query) + self._image @ (self._image_outer @ query)
            scores = total / self._length
        return np.asarray(scores, np.float32)


def write_sketch(folder: Path, name: str, tokens: TokenRows) -> None:
    """Write the sketch of `tokens`, which lie in `folder` under the same name."""
    count, dim = tokens.states.shape
    drawn = np.sort(np.random.default_rng(0).permutation(count)[:SAMPLE])
    sample = np.asarray(tokens.states[drawn], np.float64)
    basis = np.linalg.eigh(sample.T @ sample)[1][:, ::-1][:, : min(COMPONENTS, dim)].astype(np.float32)
    np.save(folder / f"{name}.basis.npy", np.ascontiguousarray(basis))
    # Not through a mapped file: a write to one ends the process where the disk is full.
    with (folder / f"{name}.sketch.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, basis.shape[1])}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, count, CHUNK):
            part = tokens.states[start : start + CHUNK].astype(np.float32) @ basis
            file.write(part.astype("<f4", copy=False).tobytes())

"""The protocol of all compared systems, and the number of passes that they need."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from model.embeddings.encoding import Encoding
from model.records import Relation


@dataclass(frozen=True)
class Passes:
    """Number of inputs that each tower must encode: the cost of a system, independent of the machine."""

    text: int
    image: int


class System(Protocol):
    """Model that encodes items under relations, compared by the five similarities of section 4.3.1."""

    @property
    def name(self) -> str:
        """Name in tables, which is the argument of `open_system`."""

    @property
    def dim(self) -> int:
        """Length of every vector."""

    @property
    def parameters(self) -> int:
        """Number of parameters of the towers that are used."""

    def passes(self, items: int, relations: int) -> Passes:
        """Return the number of passes needed for `items` items with text and picture under `relations` relations."""

    def encode(
        self, texts: Sequence[str], pictures: Sequence[Path | None], relations: Sequence[Relation]
    ) -> Encoding:
        """Encode items into unit vectors under each relation; an empty text or missing picture gives zero vectors.

        Raises:
            PictureError: a picture does not exist or cannot be decoded.
        """

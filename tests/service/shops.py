"""Indexes of the same shop with different text vectors, because each index was built with a different encoder.

    index         built from `checkpoint`, with an encoder without an accent
    renewed       built from `checkpoint`, with an encoder that uses the accent '
    candidate     built from `other-checkpoint`, with an encoder that uses the accent `

A response that combines vectors, scores, probabilities or text encodings of two indexes therefore matches no index.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from jaxtyping import Float32
from numpy import ndarray
from PIL import Image

from indexes.builder.build import build
from indexes.config import BuildConfig
from model.checkpoint.checkpoint import Checkpoint
from model.data.prepared_data import Prepared
from model.embeddings.encoding import Encoding
from tests.indexes.fakes import FakeEncoder, FakeShop, write_checkpoint, write_shop

NAMES = ("index", "renewed", "candidate")


class AccentedEncoder(FakeEncoder):
    """Encoder that appends an accent to every word, which changes the vectors of all texts."""

    def __init__(self, accent: str) -> None:
        self._accent = accent

    def read_items(
        self, texts: Sequence[str], pictures: Sequence[Image.Image | None], tokens: bool = False
    ) -> Callable[[], Encoding]:
        return super().read_items([self._read(text) for text in texts], pictures, tokens)

    def encode_texts(self, texts: Sequence[str]) -> Float32[ndarray, "texts relations dim"]:
        return super().encode_texts([self._read(text) for text in texts])

    def _read(self, text: str) -> str:
        return " ".join(f"{word}{self._accent}" for word in text.split())


def open_accented(checkpoint: Path, *_: object) -> FakeEncoder:
    """Return the encoder of a checkpoint; each checkpoint has its own accent."""
    return AccentedEncoder("" if checkpoint.name == "checkpoint" else "`")


def write_shops(folder: Path, token_store: bool = False) -> FakeShop:
    """Write all indexes into `folder` and return the shop of the first."""
    shop = write_shop(folder, token_store)
    other = folder / "other-checkpoint"
    write_checkpoint(other, seed=7)
    build_index(shop, folder / "renewed", shop.checkpoint, "'", token_store)
    build_index(shop, folder / "candidate", other, "`", token_store)
    return shop


def build_index(shop: FakeShop, out: Path, checkpoint: Path, accent: str, token_store: bool = False) -> None:
    """Build an index of the shop's items with an encoder that uses `accent`."""
    config = BuildConfig(checkpoint=checkpoint, prepared=shop.prepared, out=out, token_store=token_store)
    build(config, AccentedEncoder(accent), Checkpoint.open(checkpoint), Prepared.open(shop.prepared))

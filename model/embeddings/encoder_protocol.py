"""Protocol of an item encoder, without torch.

`model.encoder.encoder.Encoder` is the only implementation outside the tests. `indexes` and the service depend only on
the protocol, so their tests can use an encoder without a network.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from jaxtyping import Float32
from numpy import ndarray

from model.errors import PictureError
from model.records import Relation

from .attention_map import Attention
from .encoding import Encoding, TokenRows
from .free_text import FreeTextRelation

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class PictureFolder:
    """Pictures of prepared data, and how a process reads its share of them.

    `paths` are the files of all items that have a picture, in order, and `digest` identifies the data. This process
    reads about `count` of them with `workers` threads or processes (None: chosen), beside `sharers` - 1 other processes
    on this machine. Decoded pictures are read from the folder `cache` and added to it, if it is not None.
    """

    paths: Sequence[Path]
    digest: str
    count: int
    workers: int | None = None
    sharers: int = 1
    cache: Path | None = None


@dataclass(frozen=True)
class ReadItems:
    """Batch of items whose inputs have been read.

    `errors` has the positions of the items whose pictures cannot be decoded. `encode` encodes the other items; it must
    be called once, if there are any.
    """

    errors: Mapping[int, PictureError]
    encode: Callable[[], Encoding]


class ItemReader(Protocol):
    """Reader of the inputs of items, ahead of the network."""

    @property
    def depth(self) -> int:
        """Number of batches to read at a time, each in a thread, so that no worker of the reader is idle."""

    def read(self, texts: Sequence[str], paths: Sequence[Path | None], tokens: bool) -> ReadItems:
        """Tokenize texts and decode the pictures at `paths`, which are None for items without a picture.

        If `tokens` is true, the encoding includes the tokens.

        Raises:
            InputError: a worker process ended.
        """


class ItemEncoder(Protocol):
    """Trained network that encodes items under the relations it was trained on."""

    @property
    def relations(self) -> tuple[Relation, ...]:
        """Relations along the second axis of all encoded vectors; the intra-sample relation is first."""

    @property
    def dim(self) -> int:
        """Length of every vector."""

    @property
    def device(self) -> str:
        """Human-readable name of the device that the encoder runs on."""

    @property
    def towers(self) -> str:
        """Precision and library of the towers in words, with the reason if `auto` chose them."""

    def read_items(
        self, texts: Sequence[str], pictures: Sequence["Image | None"], tokens: bool = False
    ) -> Callable[[], Encoding]:
        """Tokenize texts and decode pictures, and return a function that encodes the items with the network.

        This method can run in any thread, because only the returned function uses the network. `pictures` contains
        None for an item without a picture. If `tokens` is true, the encoding includes the tokens.
        """

    def open_reader(self, folder: PictureFolder, batch_size: int) -> AbstractContextManager[ItemReader]:
        """Open a reader of batches of at most `batch_size` items whose pictures are in `folder`.

        Raises:
            InputError: the cache of decoded pictures is damaged, or the disk has no room for it.
        """

    def encode_texts(self, texts: Sequence[str]) -> Float32[ndarray, "texts relations dim"]:
        """Encode texts without pictures into unit vectors under every relation."""

    def read_relation(self, description: str) -> FreeTextRelation:
        """Encode a free-text relation for scoring against item tokens."""

    def text_tokens(self, texts: Sequence[str]) -> TokenRows:
        """Encode texts into tokens."""

    def explain(
        self, text: str | None, picture: "Image | None", relation: str | FreeTextRelation
    ) -> Attention:
        """Compute the attention of a relation over an item, whose text or picture may be missing.

        `relation` is the ID of a trained relation, or a free-text relation.

        Raises:
            UnknownRelationError: no relation has this ID.
        """

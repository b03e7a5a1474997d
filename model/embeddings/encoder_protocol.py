"""Protocol of an item encoder, without torch.

`model.encoder.encoder.Encoder` is the only implementation outside the tests. `indexes` and the service depend only on
the protocol, so their tests can use an encoder without a network.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from jaxtyping import Float32
from numpy import ndarray

from model.records import Relation

from .attention_map import Attention
from .encoding import Encoding, TokenRows
from .free_text import FreeTextRelation

if TYPE_CHECKING:
    from PIL.Image import Image


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

"""Protocol of an encoder of items; free of torch.

`model.encoder.encoder.Encoder` is the one that exists. `indexes` builds from any, and the service gives new texts
to any, so both are tested with an encoder that needs no network.
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

    def read_items(
        self, texts: Sequence[str], pictures: Sequence["Image | None"], tokens: bool = False
    ) -> Callable[[], Encoding]:
        """Tokenize and decode items, in any thread; the function returned has the network encode them.

        An item without a picture has None. With `tokens`, those are kept as well.
        """

    def encode_texts(self, texts: Sequence[str]) -> Float32[ndarray, "texts relations dim"]:
        """Encode texts that have no picture; unit rows."""

    def read_relation(self, description: str) -> FreeTextRelation:
        """Encode a free-text relation for scoring against item tokens."""

    def text_tokens(self, texts: Sequence[str]) -> TokenRows:
        """Encode texts into their tokens."""

    def explain(
        self, text: str | None, picture: "Image | None", relation: str | FreeTextRelation
    ) -> Attention:
        """Weigh what a relation, by its id or free-text, attends to in an item, of which either part may be missing.

        Raises:
            UnknownRelationError: no relation has this id.
        """

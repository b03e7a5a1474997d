"""Jobs of the network thread: encode new items, encode free-text relations, and explain attention."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from indexes.index import Index
from model.embeddings.attention_map import Attention
from model.embeddings.encoder_protocol import ItemEncoder
from model.embeddings.encoding import Encoding
from model.embeddings.free_text import FreeTextRelation

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class EncodeItemJob:
    """A new item to encode, with or without a picture."""

    text: str
    picture: "Image | None"


@dataclass(frozen=True, slots=True)
class ReadRelationJob:
    """A free-text relation to encode."""

    description: str


@dataclass(frozen=True, slots=True)
class ExplainJob:
    """A relation and an item, for which the relation's attention is to be computed."""

    text: str | None
    picture: "Image | None"
    relation: str | FreeTextRelation


Job = EncodeItemJob | ReadRelationJob | ExplainJob
Result = Encoding | FreeTextRelation | Attention


def compute(encoder: ItemEncoder, index: Index, jobs: Sequence[Job]) -> list[Result]:
    """Run jobs in the network thread of an engine and return their results in order.

    This is a function, not a method of `Engine`. A method would make the thread hold a reference to the engine, and a
    closed engine would stay in memory.
    """
    items = [job for job in jobs if isinstance(job, EncodeItemJob)]
    texts, pictures = [item.text for item in items], [item.picture for item in items]
    encoded = iter(encoder.read_items(texts, pictures, keeps_tokens(index))().split() if items else ())
    results: list[Result] = []
    for job in jobs:
        match job:
            case EncodeItemJob():
                results.append(next(encoded))
            case ReadRelationJob(description):
                results.append(encoder.read_relation(description))
            case ExplainJob(text, picture, relation):
                results.append(encoder.explain(text, picture, relation))
    return results


def keeps_tokens(index: Index) -> bool:
    """Return whether an index stores the tokens of its items."""
    return index.snapshot.generation.tokens is not None

"""Jobs that the network thread does: encode new items, read free-text relations, explain attention."""

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
    """A new item to encode, with a picture or without."""

    text: str
    picture: "Image | None"


@dataclass(frozen=True, slots=True)
class ReadRelationJob:
    """A free-text relation to encode."""

    description: str


@dataclass(frozen=True, slots=True)
class ExplainJob:
    """An item, and the relation whose attention to it is to be explained."""

    text: str | None
    picture: "Image | None"
    relation: str | FreeTextRelation


Job = EncodeItemJob | ReadRelationJob | ExplainJob
Result = Encoding | FreeTextRelation | Attention


def compute(encoder: ItemEncoder, index: Index, jobs: Sequence[Job]) -> list[Result]:
    """Do jobs, in the network thread of an engine, and return their results in order.

    Not a method of `Engine`: the thread would refer to the engine, which then would be closed but never freed.
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
    """Tell whether an index keeps the tokens of its items."""
    return index.snapshot.generation.tokens is not None

"""Jobs for the network thread: new items, free-text relations, attention to explain."""

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
    """An item for the network, without a picture or with one."""

    text: str
    picture: "Image | None"


@dataclass(frozen=True, slots=True)
class ReadRelationJob:
    """A relation in words for the network."""

    description: str


@dataclass(frozen=True, slots=True)
class ExplainJob:
    """An item that a relation is to look at."""

    text: str | None
    picture: "Image | None"
    relation: str | FreeTextRelation


Job = EncodeItemJob | ReadRelationJob | ExplainJob


Result = Encoding | FreeTextRelation | Attention


def compute(encoder: ItemEncoder, index: Index, jobs: Sequence[Job]) -> list[Result]:
    """Runs in the thread of an engine's `network`; were it bound to the engine, that would be closed but not freed."""
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
    return index.snapshot.generation.tokens is not None

"""Jobs of the network: encode new items, encode free-text relations, and explain attention."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL.Image import Image

from model.embeddings.attention_map import Attention
from model.embeddings.encoder_protocol import ItemEncoder
from model.embeddings.encoding import Encoding
from model.embeddings.free_text import FreeTextRelation


@dataclass(frozen=True, slots=True)
class EncodeItemJob:
    """A new item to encode, with or without a picture; the encoding has tokens if `tokens` is true."""

    text: str
    picture: Image | None
    tokens: bool = False


@dataclass(frozen=True, slots=True)
class ReadRelationJob:
    """A free-text relation to encode."""

    description: str


@dataclass(frozen=True, slots=True)
class ExplainJob:
    """A relation and an item, for which the relation's attention is to be computed."""

    text: str | None
    picture: Image | None
    relation: str | FreeTextRelation


Job = EncodeItemJob | ReadRelationJob | ExplainJob
Result = Encoding | FreeTextRelation | Attention


SINGLE_JOB_WEIGHT = 4
"""Weight of a job that the network computes by itself, relative to an item that it encodes together with others."""


def weigh(job: Job) -> int:
    """Return the weight of a job in a batch.

    Sixteen explanations in one batch held the network for 1.2 s, while all other jobs waited.
    """
    return 1 if isinstance(job, EncodeItemJob) else SINGLE_JOB_WEIGHT


def compute(encoder: ItemEncoder, jobs: Sequence[Job]) -> list[Result]:
    """Run jobs with the network and return their results in order.

    This is a function, not a method of `Engine`. A method would make the thread hold a reference to the engine, and a
    closed engine would stay in memory.
    """
    encoded = {tokens: _encoded(encoder, jobs, tokens) for tokens in (False, True)}
    results: list[Result] = []
    for job in jobs:
        match job:
            case EncodeItemJob():
                results.append(next(encoded[job.tokens]))
            case ReadRelationJob(description):
                results.append(encoder.read_relation(description))
            case ExplainJob(text, picture, relation):
                results.append(encoder.explain(text, picture, relation))
    return results


def _encoded(encoder: ItemEncoder, jobs: Sequence[Job], tokens: bool) -> Iterator[Encoding]:
    """Encode the items of the jobs that ask for tokens, or of those that do not, as one batch."""
    items = [job for job in jobs if isinstance(job, EncodeItemJob) and job.tokens == tokens]
    texts, pictures = [item.text for item in items], [item.picture for item in items]
    return iter(encoder.read_items(texts, pictures, tokens)().split() if items else ())

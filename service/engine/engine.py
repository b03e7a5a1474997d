"""Answers the questions of the API from an index and an encoder; knows no HTTP.

What takes no longer than a look at a table is done on the event loop. Searches are done in threads beside it, and
what the network has to do, which is one thing at a time, is joined into batches by one more thread.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, ParamSpec, Self, TypeVar, cast

from jaxtyping import Float32
from numpy import ndarray

from indexes.index import Index
from indexes.live.snapshot import Snapshot
from indexes.search.pairs import PairItem, PairScorer, RelationScore
from indexes.search.retrieve import Found, KnownItems, Question, Weighted
from model.checkpoint.relation_quality import Quality, RelationQuality
from model.checkpoint.validity import VALIDITY_THRESHOLD
from model.config import Device, Precision, TowerEngine
from model.data.images import load_picture
from model.data.item_input import decoded
from model.embeddings.attention_map import Attention
from model.embeddings.encoder_protocol import ItemEncoder
from model.embeddings.encoding import Encoding
from model.embeddings.free_text import FreeTextRelation
from model.errors import ArtifactError, NoPictureError, NoTokensError, RcmlError
from model.records import Item, Relation
from model.similarity import Similarity, View
from service.settings import ServeConfig

from .batcher import Batcher
from .index_follower import IndexFollower
from .item_json import ItemJson
from .thread_pool import ThreadPool
from .watchdog import PATIENCE, Heartbeat

if TYPE_CHECKING:
    from PIL.Image import Image
from .model_jobs import EncodeItemJob, ExplainJob, Job, ReadRelationJob, Result, compute, keeps_tokens

P = ParamSpec("P")


T = TypeVar("T")


OpenEncoder = Callable[[Path, Device, Precision, TowerEngine], ItemEncoder]
"""Opens the encoder of a checkpoint on a device, its towers in a precision and by an engine."""


KEPT = 16
"""Relations in words that are kept, and with each, as long, what all items are estimated at."""


def open_encoder(checkpoint: Path, device: Device, precision: Precision, engine: TowerEngine) -> ItemEncoder:
    """Open the network of a checkpoint; the one place of the service that loads torch."""
    from model.encoder.encoder import Encoder

    return Encoder.from_pretrained(checkpoint, device, precision=precision, engine=engine)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a relation holds between two items: it does from `threshold` on."""

    probability: float
    threshold: float

    @property
    def valid(self) -> bool:
        """The decision."""
        return self.probability >= self.threshold


class Engine:
    """An index and the encoder of its checkpoint, ready to answer; its coroutines belong to one event loop.

    It may be replaced by another while requests are still answered by it: it is closed when the last that holds it has
    let it go.
    """

    def __init__(
        self,
        index: Index,
        encoder: ItemEncoder,
        compact_at: int,
        patience: float = PATIENCE,
        quality: Quality | None = None,
    ) -> None:
        self.index = index
        self.quality = quality
        self.rendering = ItemJson()
        self.searches = ThreadPool("search", worker_patience=patience)
        self.network: Batcher[Job, Result] = Batcher(
            partial(compute, encoder, index), "network", worker_patience=patience
        )
        self._follower = IndexFollower(index, compact_at, patience)
        self._encoder = encoder
        self._relations: dict[str, FreeTextRelation] = {}
        self._holding = Lock()
        self._holders = 1  # whoever opened it

    @classmethod
    def open(
        cls, config: ServeConfig, open_encoder: OpenEncoder = open_encoder, reports: Sequence[Path] = ()
    ) -> Self:
        """Open the index and the network it was made with, and have both work once.

        Without a `config.report`, which must be of the checkpoint, the first of `reports` that is counts.

        Raises:
            ArtifactError: the index, its checkpoint or the report is missing or damaged, or they do not belong
                together.
            InputError: the device or the engine of the towers asked for is not there.
        """
        index = Index.open(config.index, config.checkpoint)
        try:
            quality = _quality(config.report, reports, index.checkpoint.manifest.digest)
            encoder = open_encoder(index.checkpoint.path, config.device, config.precision, config.engine)
            encoder.encode_texts(["warm"])  # kernels are chosen and memory is taken at the first call
            _warm(index)
        except BaseException:
            index.close()
            raise
        return cls(index, encoder, config.compact_at, config.worker_patience, quality)

    @contextmanager
    def held(self) -> Iterator[Self]:
        """Keep the engine open; whoever asks for this holds it already, or nobody may replace it meanwhile."""
        self.hold()
        try:
            yield self
        finally:
            self.release()

    def hold(self) -> None:
        """Keep the engine open until as many times `release` is called."""
        with self._holding:
            assert self._holders, "nobody is given an engine that was let go by all"
            self._holders += 1

    def release(self) -> None:
        """Let go of the engine; the last one to do so has it closed, beside what goes on."""
        with self._holding:
            self._holders -= 1
            last = not self._holders
        if last:
            Thread(target=self._close, name="rcml closing").start()

    def close(self) -> None:
        """Finish what was accepted, and give the files back."""
        self._holders = 0
        self._close()

    def _close(self) -> None:
        self.searches.close()
        self.network.close()
        self._follower.close()
        self.index.close()

    @property
    def pulses(self) -> Sequence[Heartbeat]:
        """Of the threads without which answers would stop or grow old."""
        return (self.network.pulse, *self.searches.pulses, *self._follower.pulses)

    @property
    def device(self) -> str:
        """Where new texts are encoded, in words."""
        return self._encoder.device

    async def retrieve(self, question: Question) -> tuple[Snapshot, list[Found]]:
        """The results of a question, and the snapshot whose rows they are.

        Raises:
            OverloadedError: too many wait for a search already.
            RcmlError: see `indexes.search.retrieve.retrieve`.
        """
        kept = self.index.kept(question)
        return await self.search(self.index.retrieve, question) if kept is None else kept

    async def search(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns, which takes its time: in a thread.

        If the caller gives up and lets the engine go, that is closed no earlier than such work ends.
        """
        return await self.searches.run(work, *args, **kwargs)

    async def encode(self, text: str | None, picture: "Image | None") -> Encoding:
        """A new item, known by its text, its picture or both; with its tokens, where the index keeps those of others.

        Raises:
            OverloadedError: too much waits for the network already.
        """
        encoding = cast(Encoding, await self.network.submit(EncodeItemJob(text or "", picture)))
        return encoding if text else encoding.without_text()

    async def explain(
        self, text: str | None, picture: "Image | None", relation: str | FreeTextRelation
    ) -> Attention:
        """What a relation, by its id or in words, looks at in an item.

        Raises:
            UnknownRelationError: there is none of this id.
            OverloadedError: too much waits for the network already.
        """
        if isinstance(relation, str):
            relation = self.index.worded(relation) or relation  # no encoder knows those that were added
        return cast(Attention, await self.network.submit(ExplainJob(text, picture, relation)))

    def picture(self, item_id: str) -> "Image | None":
        """The picture of an item of the catalogue, if it has one; it takes its time.

        Raises:
            UnknownItemError: there is no such item.
            ArtifactError: the picture is damaged.
        """
        try:
            _, content, _ = self.index.picture(item_id)
        except NoPictureError:
            return None
        return decoded(content) if isinstance(content, bytes) else load_picture(content)

    async def vectors(
        self, items: Sequence[PairItem], relation: str | FreeTextRelation, views: Sequence[View]
    ) -> tuple[Snapshot, dict[View, Float32[ndarray, "items dim"]]]:
        """See `Index.vectors`."""
        return await self.search(self.index.vectors, items, relation, views)

    async def read_relation(self, description: str) -> FreeTextRelation:
        """A relation in words, ready to be asked about; the latest are kept.

        Raises:
            NoTokensError: the index keeps no tokens.
            OverloadedError: too much waits for the network already.
        """
        if not self.takes_words:
            raise NoTokensError
        relation = self._relations.pop(description, None)
        if relation is None:
            relation = cast(FreeTextRelation, await self.network.submit(ReadRelationJob(description)))
        self._relations[description] = relation
        while len(self._relations) > KEPT:
            del self._relations[next(iter(self._relations))]
        return relation

    @property
    def takes_words(self) -> bool:
        """Whether the index keeps the tokens that a relation in words is put to."""
        return keeps_tokens(self.index)

    async def relation_types(
        self, item_a: PairItem, item_b: PairItem, similarity: Similarity
    ) -> tuple[Snapshot, list[RelationScore]]:
        """Every relation between different items, the likeliest link of these two first, and the snapshot they are of.

        Raises:
            UnknownItemError: there is no such item.
        """
        index, snapshot = self.index, self.index.snapshot
        comparison = PairScorer(snapshot, index.checkpoint)
        return snapshot, await self.search(comparison.relation_scores, item_a, item_b, similarity)

    async def validity(
        self, item_a: PairItem, item_b: PairItem, relation_id: str
    ) -> tuple[Snapshot, Verdict]:
        """Whether a relation holds between two different items, and how surely; and whose answer it is.

        Raises:
            UnknownItemError, UnknownRelationError: there is no such item or relation.
            IntraRelationError: the relation is that of an item with itself, which was never learnt for two.
        """
        snapshot, [verdict] = await self.validities([(item_a, item_b, relation_id)])
        if isinstance(verdict, RcmlError):
            raise verdict
        return snapshot, verdict

    async def validities(
        self, claims: Sequence[tuple[PairItem, PairItem, str]]
    ) -> tuple[Snapshot, list[Verdict | RcmlError]]:
        """`validity` of many claims at once, each by itself, and the snapshot that all are of."""
        snapshot, found = await self.search(self.index.validity_of_each, claims)
        return snapshot, [
            one if isinstance(one, RcmlError) else Verdict(one, VALIDITY_THRESHOLD) for one in found
        ]

    def quality_of(self, relation_id: str) -> RelationQuality | None:
        """What was measured of a relation, if it was."""
        return None if self.quality is None else self.quality.relations.get(relation_id)

    def item(self, item_id: str) -> Item:
        """The item of this id.

        Raises:
            UnknownItemError: there is none.
        """
        return self.index.snapshot.get(item_id)

    def relation(self, relation_id: str) -> Relation:
        """The relation of this id.

        Raises:
            UnknownRelationError: there is none.
        """
        return self.index.relation(relation_id)


def _quality(report: Path | None, others: Sequence[Path], checkpoint_digest: str) -> Quality | None:
    if report is not None:
        return Quality.open(report, checkpoint_digest)
    for other in others:
        with suppress(ArtifactError):
            return Quality.open(other, checkpoint_digest)
    return None


def _warm(index: Index) -> None:
    """Have questions answered from the tables of answers, and by search: then what they read is open, and in memory."""
    first = tuple(item.item_id for _, item in index.snapshot.page(0, 2))
    for relation in index.relations if first else ():
        for item_ids in {first[:1], first}:
            asked = (Weighted(relation.relation_id),)
            index.retrieve(Question(KnownItems(item_ids), asked, Similarity.AVG, 10))

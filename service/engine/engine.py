"""Answers the questions of the API from an index and an encoder; knows no HTTP.

A look into a precomputed table is done on the event loop. Searches run in threads (`thread_pool.py`). The network does
one thing at a time, so one more thread joins its jobs into batches (`batcher.py`, `model_jobs.py`).
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, Self, TypeVar, cast

from indexes.index import Index
from indexes.reader import Reader
from indexes.search.retrieve import Found, KnownItems, Question, Weighted
from model.checkpoint.relation_quality import Quality, RelationQuality
from model.config import Device, Precision, TowerEngine
from model.data.images import load_picture
from model.data.item_input import decoded
from model.embeddings.attention_map import Attention
from model.embeddings.encoder_protocol import ItemEncoder
from model.embeddings.encoding import Encoding
from model.embeddings.free_text import FreeTextRelation
from model.errors import ArtifactError, NoPictureError, NoTokensError
from model.similarity import Similarity
from service.problems.errors import NotReadyError
from service.settings import ServeConfig

from .batcher import Batcher
from .index_follower import IndexFollower
from .item_json import ItemJson
from .model_jobs import EncodeItemJob, ExplainJob, Job, ReadRelationJob, Result, compute, keeps_tokens
from .reference_counted import ReferenceCounted
from .thread_pool import ThreadPool
from .watchdog import JOB_TIMEOUT_S, Heartbeat

if TYPE_CHECKING:
    from PIL.Image import Image

P = ParamSpec("P")
T = TypeVar("T")

OpenEncoder = Callable[[Path, Device, Precision, TowerEngine], ItemEncoder]
"""Opens the encoder of a checkpoint on a device, its towers in a precision and by an engine."""

CACHED_RELATIONS = 16
"""Free-text relations that are kept, each with the estimated vectors of all items."""


def open_encoder(checkpoint: Path, device: Device, precision: Precision, engine: TowerEngine) -> ItemEncoder:
    """Open the network of a checkpoint; the one place of the service that loads torch."""
    from model.encoder.encoder import Encoder

    return Encoder.from_pretrained(checkpoint, device, precision=precision, engine=engine)


class Engine(ReferenceCounted):
    """An index and the encoder of its checkpoint, ready to answer; its coroutines belong to one event loop.

    Another may replace it while requests are still answered by it: it is closed when the last of them releases it.
    """

    def __init__(
        self,
        index: Index,
        encoder: ItemEncoder,
        compact_at: int,
        job_timeout_s: float = JOB_TIMEOUT_S,
        quality: Quality | None = None,
    ) -> None:
        super().__init__()
        self.index = index
        self.quality = quality
        self.item_json = ItemJson()
        self.threads = ThreadPool("search", job_timeout_s=job_timeout_s)
        self.network: Batcher[Job, Result] = Batcher(
            partial(compute, encoder, index), "network", job_timeout_s=job_timeout_s
        )
        self._follower = IndexFollower(index, compact_at, job_timeout_s)
        self._encoder = encoder
        self._relations: dict[str, FreeTextRelation] = {}

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

    def _close(self) -> None:
        self.threads.close()
        self.network.close()
        self._follower.close()
        self.index.close()

    @property
    def heartbeats(self) -> Sequence[Heartbeat]:
        """Heartbeats of the threads without which answers would stop or grow old."""
        return (self.network.heartbeat, *self.threads.heartbeats, *self._follower.heartbeats)

    @property
    def device(self) -> str:
        """Name of the device on which new texts are encoded."""
        return self._encoder.device

    @property
    def takes_free_text(self) -> bool:
        """Whether the index keeps the tokens that free-text relations are scored on."""
        return keeps_tokens(self.index)

    def quality_of(self, relation_id: str) -> RelationQuality | None:
        """Get what was measured of a relation, if anything was."""
        return None if self.quality is None else self.quality.relations.get(relation_id)

    async def run_in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `work` in one of the search threads, and return what it returns.

        If the caller is cancelled and releases the engine, the engine is closed only after such work has ended.

        Raises:
            OverloadedError: too much waits for the threads already.
        """
        return await self.threads.run(work, *args, **kwargs)

    async def retrieve(self, reader: Reader, question: Question) -> list[Found]:
        """Answer a question: at once from the precomputed table, or by a search in a thread.

        Raises:
            OverloadedError: too many wait for a search already.
            RcmlError: see `indexes.search.retrieve.retrieve`.
        """
        found = reader.precomputed(question)
        return await self.run_in_thread(reader.retrieve, question) if found is None else found

    async def encode(self, text: str | None, picture: "Image | None") -> Encoding:
        """Encode a new item, known by its text, its picture or both; with its tokens, if the index keeps tokens.

        Raises:
            OverloadedError: too much waits for the network already.
        """
        encoding = cast(Encoding, await self.network.submit(EncodeItemJob(text or "", picture)))
        return encoding if text else encoding.without_text()

    async def read_relation(self, description: str) -> FreeTextRelation:
        """Encode a free-text relation for scoring against item tokens; the latest ones are cached.

        Raises:
            NoTokensError: the index keeps no tokens.
            OverloadedError: too much waits for the network already.
        """
        if not self.takes_free_text:
            raise NoTokensError
        relation = self._relations.pop(description, None)
        if relation is None:
            relation = cast(FreeTextRelation, await self.network.submit(ReadRelationJob(description)))
        self._relations[description] = relation
        while len(self._relations) > CACHED_RELATIONS:
            del self._relations[next(iter(self._relations))]
        return relation

    async def explain(
        self, reader: Reader, text: str | None, picture: "Image | None", relation: str | FreeTextRelation
    ) -> Attention:
        """Explain what a relation, by its id or as free text, looks at in an item.

        Raises:
            UnknownRelationError: there is none of this id.
            OverloadedError: too much waits for the network already.
        """
        if isinstance(relation, str):
            relation = reader.free_text(relation) or relation  # no encoder knows those added at run time
        return cast(Attention, await self.network.submit(ExplainJob(text, picture, relation)))

    def picture(self, reader: Reader, item_id: str) -> "Image | None":
        """Decode the picture of an item of the catalogue, if it has one; to be called in a thread.

        Raises:
            UnknownItemError: there is no such item.
            ArtifactError: the picture is damaged.
            NotReadyError: the index was compacted twice, and the item changed, since the reader was taken.
        """
        try:
            stored = reader.picture(item_id)
            if stored is None:
                stored = self.index.picture(item_id)
                if stored.sha256 != reader.snapshot.picture(reader.snapshot.row(item_id))[0]:
                    raise NotReadyError(f"Item {item_id!r} was changed while it was read. Ask again.")
        except NoPictureError:
            return None
        content = stored.content
        return decoded(content) if isinstance(content, bytes) else load_picture(content)


def _quality(report: Path | None, others: Sequence[Path], checkpoint_digest: str) -> Quality | None:
    """Open `report`, or without one the first of `others` that is of the checkpoint.

    Raises:
        ArtifactError: `report` is missing, damaged, or of another checkpoint.
    """
    if report is not None:
        return Quality.open(report, checkpoint_digest)
    for other in others:
        with suppress(ArtifactError):
            return Quality.open(other, checkpoint_digest)
    return None


def _warm(index: Index) -> None:
    """Answer questions from the precomputed tables and by search, so that the files they read are open and cached."""
    reader = index.reader()
    first = tuple(item.item_id for _, item in reader.snapshot.page(0, 2))
    for relation in reader.relations if first else ():
        for item_ids in {first[:1], first}:
            asked = (Weighted(relation.relation_id),)
            reader.retrieve(Question(KnownItems(item_ids), asked, Similarity.AVG, 10))

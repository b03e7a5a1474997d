"""Engine that answers API queries from an index and an encoder, independent of HTTP.

Lookups in a precomputed top-k table run on the event loop. Searches run in a thread pool (`thread_pool.py`). The
network runs one batch at a time, so its jobs wait in a queue (`network_queue.py`, `batcher.py`, `model_jobs.py`).
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec, Self, TypeVar, cast

from PIL import Image

from indexes.index import Index
from indexes.live.snapshot import Snapshot
from indexes.reader import Reader
from indexes.search.retrieve import KnownItems, Question, Ranking, Weighted
from indexes.vectors.faiss_threads import use_one_blas_thread
from indexes.vectors.gpu_vectors import open_cards
from model.checkpoint.relation_quality import Quality, RelationQuality
from model.config import Device, TowerEngine, TowerPrecision
from model.data.item_input import decoded
from model.data.pictures.images import load_picture
from model.embeddings.attention_map import Attention
from model.embeddings.encoder_protocol import ItemEncoder
from model.embeddings.encoding import Encoding
from model.embeddings.free_text import FreeTextRelation
from model.errors import ArtifactError, NoPictureError, NoTokensError, PictureError
from model.similarity import Similarity
from service.problems.errors import NotReadyError
from service.schemas.retrieve import SUMMARY
from service.settings import ServeConfig
from service.shared.counters import SharedCounters

from .index_follower import IndexFollower
from .item_json import ItemJson
from .loop_turns import LoopTurns
from .model_jobs import EncodeItemJob, ExplainJob, ReadRelationJob
from .network_queue import LocalNetwork, NetworkQueue
from .open_encoder import open_encoder
from .reference_counted import ReferenceCounted
from .shared_changes import SharedChanges
from .thread_pool import ThreadPool
from .watchdog import JOB_TIMEOUT_S, Heartbeat
from .work_bound import WorkBound

P = ParamSpec("P")
T = TypeVar("T")

OpenEncoder = Callable[[Path, Device, TowerPrecision, TowerEngine], ItemEncoder | NetworkQueue]
"""Function that opens the network of a checkpoint on a device, with a precision and a runtime for its towers.

It returns an encoder, which then runs in a thread of this process, or the queue of a network that runs elsewhere.
"""

MAX_READ_ON_LOOP = 10
"""Maximum number of items of an answer that are read from the disk on the event loop."""

CONCURRENT_BULK_GROUPS = 2
"""Groups of lines of all bulk uploads that are applied at a time. One is read while the network encodes another."""

CACHED_RELATIONS = 16
"""Maximum number of cached free-text relations. For each, the index caches low-rank estimates of all item vectors."""


class Engine(ReferenceCounted):
    """An open index and the encoder of its checkpoint. All coroutines must run on the same event loop.

    An engine can be replaced while it still serves requests. It closes when the last request releases it.
    """

    def __init__(
        self,
        index: Index,
        network: NetworkQueue,
        compact_at: int,
        job_timeout_s: float = JOB_TIMEOUT_S,
        quality: Quality | None = None,
        root_path: str = "",
        counters: SharedCounters | None = None,
    ) -> None:
        super().__init__()
        counters = counters or SharedCounters.alone()
        self.index = index
        self.changes = SharedChanges(index, counters)
        self.quality = quality
        self.root_path = root_path
        self.item_json = ItemJson(root_path)
        self.turns = LoopTurns()
        self.work_bound = WorkBound(counters=counters)
        self.bulk_groups = asyncio.Semaphore(CONCURRENT_BULK_GROUPS)
        self.threads = ThreadPool("search", job_timeout_s=job_timeout_s)
        self.network = network
        self._follower = IndexFollower(index, compact_at, job_timeout_s, lambda: counters.leads)
        self._relations: dict[str, FreeTextRelation] = {}

    @classmethod
    def open(
        cls,
        config: ServeConfig,
        open_encoder: OpenEncoder = open_encoder,
        reports: Sequence[Path] = (),
        counters: SharedCounters | None = None,
    ) -> Self:
        """Open the index and the network of its checkpoint, and warm up both.

        Relation quality comes from `config.report`, which must belong to the checkpoint. If `config.report` is not
        set, it comes from the first of `reports` that belongs to the checkpoint.

        Raises:
            ArtifactError: The index, its checkpoint or the report is missing or damaged, or they do not belong
                together.
            InputError: The configured device or tower runtime is not available.
        """
        use_one_blas_thread()
        cards = open_cards(0 if config.device == "cpu" else config.gpu_memory)
        index = Index.open(config.index, config.checkpoint, cards, config.free_text_memory)
        try:
            quality = _quality(config.report, reports, index.checkpoint.manifest.digest)
            _warm(index)
            opened = open_encoder(index.checkpoint.path, config.device, config.precision, config.engine)
            if not isinstance(opened, NetworkQueue):
                opened = LocalNetwork(opened, config.worker_patience)
        except BaseException:
            index.close()
            raise
        return cls(
            index, opened, config.compact_at, config.worker_patience, quality, config.root_path, counters
        )

    def _close(self) -> None:
        self.threads.close()
        self.network.close()
        self._follower.close()
        self.index.close()

    @property
    def heartbeats(self) -> Sequence[Heartbeat]:
        """Heartbeats of all threads that the engine needs to answer queries and to keep the index up to date."""
        return (self.network.heartbeat, *self.threads.heartbeats, *self._follower.heartbeats)

    @property
    def device(self) -> str:
        """Name of the device that encodes new items."""
        return self.network.device

    @property
    def vectors_device(self) -> str:
        """Devices that search the vectors, as a sentence about them."""
        return self.index.snapshot.generation.vectors.device

    @property
    def towers(self) -> str:
        """Precision and library of the towers, in words."""
        return self.network.towers

    @property
    def takes_free_text(self) -> bool:
        """Whether the index stores item tokens, which free-text relations require."""
        return self.index.snapshot.generation.tokens is not None

    def quality_of(self, relation_id: str) -> RelationQuality | None:
        """Return the measured quality of a relation, or None if it was not measured."""
        return None if self.quality is None else self.quality.relations.get(relation_id)

    async def run_in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `work` in a search thread and return its result.

        If the caller is cancelled and releases the engine, the engine does not close until `work` has returned.

        Raises:
            OverloadedError: The queue of the search threads is too long.
        """
        return await self.threads.run(work, *args, **kwargs)

    async def retrieve(self, reader: Reader, question: Question) -> Ranking:
        """Answer a query from the precomputed table if possible, otherwise by a search in a thread.

        The caller has a turn on the event loop to put the answer together, until its next `await`.

        Raises:
            OverloadedError: The queue of the search threads is too long.
            RcmlError: See `indexes.search.retrieve.retrieve`.
        """
        await self.turns.take(question.k)
        found = reader.precomputed(question)
        if found is not None:
            return Ranking(found)
        ranking = await self.run_in_thread(reader.retrieve, question)
        await self.turns.take(question.k)
        return ranking

    async def items(self, snapshot: Snapshot, rows: Sequence[int], fields: Sequence[str]) -> list[bytes]:
        """Return the given fields of the items at `rows` as JSON. As after `retrieve`, the caller has a turn.

        Only the default fields are cached. Others, and those of many items that are not cached, are read in a thread.

        Raises:
            OverloadedError: The queue of the search threads is too long.
        """
        summary = tuple(fields) == SUMMARY
        missing = self.item_json.missing(snapshot, rows) if summary else rows
        found: list[bytes] = []
        if not summary or len(missing) > MAX_READ_ON_LOOP:
            found = await self.run_in_thread(self.item_json.read, snapshot, missing, fields)
            await self.turns.take(len(rows))
        if summary:
            return self.item_json.summaries(snapshot, rows, dict(zip(missing, found, strict=False)))
        return found

    async def encode(self, text: str | None, picture: Image.Image | None) -> Encoding:
        """Encode a new item from its text, its picture or both. The encoding has tokens if the index stores tokens.

        Raises:
            OverloadedError: The queue of the network is too long.
        """
        encoding = cast(
            Encoding, await self.network.submit(EncodeItemJob(text or "", picture, self.takes_free_text))
        )
        return encoding if text else encoding.without_text()

    async def read_relation(self, description: str) -> FreeTextRelation:
        """Encode a free-text relation for scoring against item tokens. The most recently used ones are cached.

        Raises:
            NoTokensError: The index stores no tokens.
            OverloadedError: The queue of the network is too long.
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
        self, reader: Reader, text: str | None, picture: Image.Image | None, relation: str | FreeTextRelation
    ) -> Attention:
        """Return a relation's attention over the words and picture patches of an item.

        `relation` is the ID of a relation, or a free-text relation.

        Raises:
            UnknownRelationError: No relation has this ID.
            OverloadedError: The queue of the network is too long.
        """
        if isinstance(relation, str):
            relation = reader.free_text(relation) or relation  # the encoder lacks relations added at run time
        return cast(Attention, await self.network.submit(ExplainJob(text, picture, relation)))

    def picture(self, reader: Reader, item_id: str) -> Image.Image | None:
        """Decode and return the picture of an item of the catalogue, or None for an item without a picture.

        Must be called in a thread, because it blocks.

        Raises:
            UnknownItemError: No item has this ID.
            DamagedPictureError: The picture is damaged, which is never the fault of the client.
            NotReadyError: After `reader` was created, the index was compacted twice and the item changed.
        """
        try:
            stored = reader.picture(item_id)
            if stored is None:
                stored = self.index.picture(item_id)
                if stored.sha256 != reader.snapshot.picture_sha256(reader.snapshot.row(item_id)):
                    raise NotReadyError(
                        f"Item {item_id!r} changed while the server was reading it. Retry the request."
                    )
        except NoPictureError:
            return None
        content = stored.content
        try:
            return decoded(content) if isinstance(content, bytes) else load_picture(content)
        except (PictureError, OSError) as error:
            raise self.index.pictures.report(stored.name, stored.name, stored.sha256, error) from error


def _quality(report: Path | None, others: Sequence[Path], checkpoint_digest: str) -> Quality | None:
    """Open `report`. If it is None, open the first of `others` that belongs to the checkpoint.

    Raises:
        ArtifactError: `report` is missing or damaged, or belongs to another checkpoint.
    """
    if report is not None:
        return Quality.open(report, checkpoint_digest)
    for other in others:
        with suppress(ArtifactError):
            return Quality.open(other, checkpoint_digest)
    return None


def _warm(index: Index) -> None:
    """Answer queries from the precomputed tables and by search, so that the index files are open and cached."""
    reader = index.reader()
    first = tuple(item.item_id for _, item in reader.snapshot.page(0, 2))
    for relation in reader.relations if first else ():
        for item_ids in {first[:1], first}:
            asked = (Weighted(relation.relation_id),)
            reader.retrieve(Question(KnownItems(item_ids), asked, Similarity.AVG, 10))

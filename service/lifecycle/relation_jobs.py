"""Background jobs that add free-text relations to the index, one at a time.

To make the vectors of all items under one takes from seconds to hours, so the client that posts one is answered at
once, and may ask how far it has come. A relation is added to the index that answers: when another takes its place, the
job starts again there.
"""

import asyncio
from dataclasses import dataclass

from model.errors import ArtifactError, InputError, NoTokensError, RcmlError
from model.records import Relation
from service.engine.engine import Engine
from service.problems.errors import (
    BusyError,
    OverloadedError,
    TooManyJobsError,
    TrainedRelationError,
    UnfitRelationError,
)
from service.problems.rejections import detail_of
from service.schemas.relations import RelationState
from service.telemetry.logs import logger

from .engine_holder import EngineHolder

MAX_UNFINISHED_JOBS = 8
"""Relations that may wait or be embedded at a time."""


MAX_FAILED_JOBS = 16
"""Failed relations that are remembered, the latest."""


@dataclass(eq=False)
class RelationJob:
    """A relation being added: `done` of `total` vectors and answers are made; `reason` says why it failed."""

    relation: Relation
    state: RelationState = "waiting"
    done: int = 0
    total: int = 0
    reason: str | None = None
    abandoned: bool = False


class _AbandonedError(Exception):
    """Nobody wants the relation any more."""


class _SupersededError(Exception):
    """Another engine answers now."""


class RelationJobs:
    """The jobs of all relations that are not indexed yet; used from one event loop."""

    def __init__(self, holder: EngineHolder) -> None:
        self._holder = holder
        self._jobs: dict[str, RelationJob] = {}
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def pending(self) -> list[RelationJob]:
        """Jobs that wait, are in progress or failed, in the order of their arrival."""
        return [*self._jobs.values()]

    def find(self, relation_id: str) -> RelationJob | None:
        """Return the job of the relation of this id, if there is one."""
        return self._jobs.get(relation_id)

    def add(self, engine: Engine, relation: Relation) -> RelationJob:
        """Add a relation in the background; a failed job of the same id is forgotten.

        Raises:
            UnfitRelationError: its id or description is not one line of text, or that of another.
            NoTokensError: the index keeps no tokens.
            TooManyJobsError: `MAX_UNFINISHED_JOBS` are unfinished.
        """
        try:
            engine.index.check_new_relation(relation)
        except InputError as error:
            raise UnfitRelationError(str(error)) from error
        unfinished = [job for job in self._jobs.values() if job.state != "failed"]
        for job in unfinished:
            if relation.relation_id == job.relation.relation_id:
                raise UnfitRelationError(
                    f"Relation {relation.relation_id!r} is being added already; choose another id."
                )
            if relation.description == job.relation.description:
                raise UnfitRelationError(
                    f"Relation {job.relation.relation_id!r}, which is being added, has the same description; ask by "
                    "that."
                )
        if len(unfinished) >= MAX_UNFINISHED_JOBS:
            raise TooManyJobsError(MAX_UNFINISHED_JOBS)
        self._jobs.pop(relation.relation_id, None)
        failed = [job.relation.relation_id for job in self._jobs.values() if job.state == "failed"]
        for relation_id in failed[:-MAX_FAILED_JOBS]:
            del self._jobs[relation_id]
        job = self._jobs[relation.relation_id] = RelationJob(relation)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return job

    async def remove(self, engine: Engine, relation_id: str) -> None:
        """Take out a relation that was added, or abandon its job.

        Raises:
            UnknownRelationError: there is none of this id.
            TrainedRelationError: it is one of the checkpoint.
            BusyError: the index is being changed.
        """
        job = self._jobs.pop(relation_id, None)
        if job is not None:
            job.abandoned = True
            return
        if engine.index.reader().free_text(relation_id) is None:
            raise TrainedRelationError(relation_id)
        if any(job.state == "embedding" for job in self._jobs.values()):
            raise BusyError(
                "A relation is being added. Ask again when GET /relations shows none as embedding."
            )

        def remove() -> None:
            with engine.held():
                engine.index.remove_relation(relation_id)

        try:
            await asyncio.to_thread(remove)
        except ArtifactError as error:
            logger.warning("%s", error)
            raise BusyError("Another process changes this index now. Ask again in a moment.") from error

    async def close(self) -> None:
        """Abandon all jobs; the index is as if the one in progress had never begun."""
        self._closing = True
        if self._task is not None:
            await self._task

    async def _work(self) -> None:
        while not self._closing:
            waiting = [job for job in self._jobs.values() if job.state == "waiting"]
            if not waiting:
                return
            await self._finish(waiting[0])

    async def _finish(self, job: RelationJob) -> None:
        """Work on one job until it is indexed, failed or abandoned."""
        job.state = "embedding"
        relation_id = job.relation.relation_id
        try:
            while not await self._embedded(job):
                job.done = 0
        except _AbandonedError:
            return
        except (InputError, NoTokensError) as error:
            job.reason = detail_of(error)
        except Exception as error:
            # A part of it may name files, so it is for the log alone.
            logger.warning("%s", error, exc_info=not isinstance(error, RcmlError))
            job.reason = "The index could not be changed; the server's log says why. Post the relation again."
        if job.reason is not None:
            logger.warning("Relation %r was not added: %s", relation_id, job.reason)
            job.state = "failed"
            return
        job.state = "indexed"
        if self._jobs.get(relation_id) is job:
            del self._jobs[relation_id]

    async def _embedded(self, job: RelationJob) -> bool:
        """Add one relation to the index that answers; returns whether that index still answers afterwards."""
        relation = job.relation
        with self._holder.held() as engine:

            def progress(done: int, total: int) -> None:
                """Note how far the job is; called in the thread that makes the vectors, after every few."""
                if job.abandoned or self._closing:
                    raise _AbandonedError
                if self._holder.engine is not engine:
                    raise _SupersededError
                job.done, job.total = done, total

            try:
                free_text = await engine.read_relation(relation.description)
                await asyncio.to_thread(engine.index.add_relation, relation, free_text, progress)
            except OverloadedError as error:
                if job.abandoned or self._closing:
                    raise _AbandonedError from error
                await asyncio.sleep(1)
                return False
            except _SupersededError:
                return False
            except InputError:
                if relation not in engine.index.relations:
                    raise  # otherwise the engine before, of the same folder, finished it
            if job.abandoned:
                await asyncio.to_thread(engine.index.remove_relation, relation.relation_id)
                raise _AbandonedError
            return self._holder.engine is engine

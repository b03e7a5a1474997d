"""Background jobs that add free-text relations to the index, one at a time.

Embedding all items under a new relation takes seconds to hours. The client that posts a relation therefore gets a
response at once, and can poll for the progress. A job adds its relation to the served index. If another index replaces
the served index, the job starts again with the new one.
"""

import asyncio
from dataclasses import dataclass, field

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
"""Maximum number of jobs that are waiting or in progress."""


MAX_FAILED_JOBS = 16
"""Maximum number of failed jobs that are kept when a job is added. The oldest are discarded."""


@dataclass(eq=False)
class RelationJob:
    """A relation that is being added.

    `total` is the number of vectors and precomputed answers to compute, and `done` is how many of them are finished.
    `reason` states why the job failed. `ended` is set once the job no longer changes the index.
    """

    relation: Relation
    state: RelationState = "waiting"
    done: int = 0
    total: int = 0
    reason: str | None = None
    abandoned: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class _AbandonedError(Exception):
    """Signal that a job was cancelled, or that the server is stopping."""


class _SupersededError(Exception):
    """Signal that another engine has replaced the engine of a job."""


class RelationJobs:
    """Manager of the jobs of all relations that are not indexed yet. Use it from one event loop."""

    def __init__(self, holder: EngineHolder) -> None:
        self._holder = holder
        self._jobs: dict[str, RelationJob] = {}
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def pending(self) -> list[RelationJob]:
        """Jobs that are waiting, in progress or failed, in order of arrival."""
        return [*self._jobs.values()]

    def find(self, relation_id: str) -> RelationJob | None:
        """Return the job of the relation with this ID, or None."""
        return self._jobs.get(relation_id)

    def add(self, engine: Engine, relation: Relation) -> RelationJob:
        """Start adding a relation in the background. A failed job with the same ID is discarded.

        Raises:
            ReadOnlyError: the server may not write to the folder of the index.
            UnfitRelationError: the ID or the description is not one line of text, or is already in use.
            NoTokensError: the index stores no tokens.
            TooManyJobsError: `MAX_UNFINISHED_JOBS` jobs are unfinished.
        """
        try:
            engine.index.check_new_relation(relation)
        except InputError as error:
            raise UnfitRelationError(str(error)) from error
        unfinished = [job for job in self._jobs.values() if job.state != "failed"]
        for job in unfinished:
            if relation.relation_id == job.relation.relation_id:
                raise UnfitRelationError(
                    f"Relation {relation.relation_id!r} is already being added. Choose another ID."
                )
            if relation.description == job.relation.description:
                raise UnfitRelationError(
                    f"Relation {job.relation.relation_id!r}, which is being added, has the same description. Use that "
                    "relation."
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
        """Remove an added relation, or cancel its job.

        Raises:
            UnknownRelationError: no relation has this ID.
            TrainedRelationError: the relation belongs to the checkpoint.
            BusyError: the index is being changed.
        """
        job = self._jobs.pop(relation_id, None)
        if job is not None:
            job.abandoned = True
            if job.state == "embedding" and _has(engine, relation_id):
                await job.ended.wait()  # the job has just added the relation, and removes it again
            if not _has(engine, relation_id):
                return
        if engine.index.reader().free_text(relation_id) is None:
            raise TrainedRelationError(relation_id)
        if any(job.state == "embedding" for job in self._jobs.values()):
            raise BusyError(
                "Another relation is being added. Retry when no relation in GET /relations has the state `embedding`."
            )

        def remove() -> None:
            with engine.held():
                engine.changes.remove_relation(relation_id)

        try:
            await asyncio.to_thread(remove)
        except ArtifactError as error:
            logger.warning("%s", error)
            raise BusyError("Another process is changing this index. Retry in a moment.") from error

    async def close(self) -> None:
        """Cancel all jobs. The job in progress leaves the index unchanged."""
        self._closing = True
        if self._task is not None:
            await self._task

    async def _work(self) -> None:
        while not self._closing:
            waiting = [job for job in self._jobs.values() if job.state == "waiting"]
            if not waiting:
                return
            try:
                await self._finish(waiting[0])
            finally:
                waiting[0].ended.set()

    async def _finish(self, job: RelationJob) -> None:
        """Run one job until its relation is indexed, or the job fails or is cancelled."""
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
            # The error may contain file names, so only the log shows it.
            logger.warning("%s", error, exc_info=not isinstance(error, RcmlError))
            job.reason = "The index could not be changed. See the server log for the cause, and add the relation again."
        if job.reason is not None:
            logger.warning("Relation %r was not added: %s", relation_id, job.reason)
            job.state = "failed"
            return
        job.state = "indexed"
        if self._jobs.get(relation_id) is job:
            del self._jobs[relation_id]

    async def _embedded(self, job: RelationJob) -> bool:
        """Add one relation to the served index, and return True; return False if the caller must try again.

        The caller must try again if the network is overloaded or if another engine has replaced the serving engine.
        """
        relation = job.relation
        with self._holder.held() as engine:

            def progress(done: int, total: int) -> None:
                """Record the progress of the job. Called in the embedding thread after every few vectors."""
                if job.abandoned or self._closing:
                    raise _AbandonedError
                if self._holder.engine is not engine:
                    raise _SupersededError
                job.done, job.total = done, total

            try:
                free_text = await engine.read_relation(relation.description)
                await asyncio.to_thread(engine.changes.add_relation, relation, free_text, progress)
            except OverloadedError as error:
                if job.abandoned or self._closing:
                    raise _AbandonedError from error
                await asyncio.sleep(1)
                return False
            except _SupersededError:
                return False
            except InputError:
                # If the index already has this relation, an earlier attempt added it before the engine was replaced.
                if relation not in engine.index.relations:
                    raise
            if job.abandoned:
                await asyncio.to_thread(engine.changes.remove_relation, relation.relation_id)
                raise _AbandonedError
            return self._holder.engine is engine


def _has(engine: Engine, relation_id: str) -> bool:
    return relation_id in engine.index.snapshot.generation.positions

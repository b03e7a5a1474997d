"""Schemas for reloading the served index and for shadow runs of a candidate."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from .fields import Request, Version


def _one_step(name: str) -> str:
    # The limit is below the 255 bytes of most file systems, because lock files and unfinished artifacts add a prefix
    # or suffix to the name.
    longest = 200
    if (
        name.startswith(".")
        or any(sign in name for sign in ("/", "\\", "\0"))
        or len(name.encode()) > longest
    ):
        raise PydanticCustomError(
            "folder_name",
            "The folder name starts with a dot, contains a path separator or is too long.",
            {
                "remedy": "Send the name of a folder next to the served index, without a path. To use another "
                "folder, create a symbolic link to it next to the served index."
            },
        )
    return name


FolderName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_step)]


class Artifacts(Request):
    """Artifacts to open. Each is the name of a folder next to the served index, without a path."""

    index: FolderName | None = Field(None, description="name of an index; null reopens the served index")
    checkpoint: FolderName | None = Field(
        None, description="name of a checkpoint; null opens the checkpoint that the index names"
    )
    report: FolderName | None = Field(
        None,
        description="name of an evaluation report of the checkpoint; null keeps the current report if it belongs to "
        "the checkpoint",
    )


class ReloadRequest(Artifacts):
    """Artifacts to serve from now on."""


class ReloadAnswer(BaseModel):
    """Index versions before and after a reload."""

    before: Version
    after: Version
    seconds: float = Field(ge=0, description="time to open and warm up the index, in seconds")


class ShadowRequest(Artifacts):
    """Candidate for a shadow run, and its share of the traffic."""

    share: float = Field(
        gt=0,
        le=1,
        description="share of the eligible live queries that the candidate also answers; a POST /retrieve query is "
        "eligible if it names its items and relations by ID",
    )


class Overlaps(BaseModel):
    """Overlap of two result lists: the number of common items, divided by the length of the longer list."""

    mean: float = Field(ge=0, le=1, description="mean, from 0 to 1")
    p5: float = Field(ge=0, le=1, description="5th percentile")
    p50: float = Field(ge=0, le=1, description="median")
    identical: float = Field(
        ge=0, le=1, description="share of requests with the same items in the same order"
    )


class ScoreShift(BaseModel):
    """Score from the candidate minus score from the live index, for items that both returned."""

    mean: float = Field(ge=-2, le=2, description="mean difference")
    p95: float = Field(ge=0, le=2, description="95th percentile of the absolute difference")


class Latencies(BaseModel):
    """Latency of the search stage."""

    live_ms: float = Field(ge=0, description="median of the live index, in milliseconds")
    candidate_ms: float = Field(
        ge=0, description="median of the candidate when it answers one request at a time, in milliseconds"
    )
    ratio: float | None = Field(
        ge=0, description="`candidate_ms` divided by `live_ms`; null if `live_ms` is 0"
    )


class ShadowState(BaseModel):
    """State of a shadow run. The statistics cover the latest comparisons between the candidate and the live index.

    A reload of the live index resets all counts and statistics.
    """

    version: Version = Field(description="version of the candidate")
    against: str | None = Field(
        description="version of the live index that answered the latest request; null before the first request"
    )
    share: float = Field(gt=0, le=1, description="share of requests that the candidate also answers")
    since: datetime = Field(description="time at which the shadow run started, in UTC")
    compared: int = Field(
        ge=0,
        description="number of requests answered by both indexes; the statistics cover the latest 10,000",
    )
    dropped: int = Field(ge=0, description="number of requests not compared because the queue was full")
    failed: dict[str, int] = Field(
        description="number of requests that the candidate could not answer, by reason: `unknown-item`, "
        "`unknown-relation`, `refused` or `failed`"
    )
    error_share: float | None = Field(
        ge=0,
        le=1,
        description="share of the candidate's requests that it could not answer; null before its first request",
    )
    overlap: Overlaps | None = Field(description="overlap of the results; null before the first comparison")
    score_shift: ScoreShift | None = Field(
        description="differences in score; null if no item was returned by both"
    )
    rank_correlation: float | None = Field(
        ge=-1,
        le=1,
        description="mean Spearman rank correlation of the items that both returned; null if no request had "
        "two such items",
    )
    latency: Latencies | None = Field(description="latency of the search; null before the first comparison")

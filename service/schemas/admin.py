"""What is served, exchanged; and a candidate for it, compared."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from .fields import Request, Version


def _one_step(name: str) -> str:
    longest = 200  # bytes; file systems take 255, and a lock or a draft beside it has a longer name
    if (
        name.startswith(".")
        or any(sign in name for sign in ("/", "\\", "\0"))
        or len(name.encode()) > longest
    ):
        raise PydanticCustomError(
            "folder_name",
            "That is not the name of a folder beside the served index.",
            {
                "remedy": "Send the name alone, without a path; a folder elsewhere can be linked to from there."
            },
        )
    return name


FolderName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_step)]


class Artifacts(Request):
    """What to open; all are folders that lie beside the served index, and are named without a path."""

    index: FolderName | None = Field(
        None, description="name of an index; null is the one that is served, opened anew"
    )
    checkpoint: FolderName | None = Field(
        None, description="name of its checkpoint, where that is not the one the index names"
    )
    report: FolderName | None = Field(
        None,
        description="name of that one's evaluation report; null keeps the one served if it is of the checkpoint",
    )


class ReloadRequest(Artifacts):
    """What is to answer from now on."""


class ReloadAnswer(BaseModel):
    """What answered until now, and what does from now on."""

    before: Version
    after: Version
    seconds: float = Field(ge=0, description="time it took to open and warm it, in seconds")


class ShadowRequest(Artifacts):
    """A candidate, and how much is asked of it."""

    share: float = Field(
        gt=0,
        le=1,
        description="share of the questions of POST /retrieve that are put to it too; only those count that name "
        "items and relations by their ids",
    )


class Overlaps(BaseModel):
    """Share of items common to an answer and the candidate's, of the longer of the two."""

    mean: float = Field(ge=0, le=1, description="mean, from 0 to 1")
    p5: float = Field(ge=0, le=1, description="5 of 100 answers have this or less")
    p50: float = Field(ge=0, le=1, description="median")
    identical: float = Field(ge=0, le=1, description="share of answers with the same items in the same order")


class ScoreShift(BaseModel):
    """Score by the candidate less score by what answered, of the items that both found."""

    mean: float = Field(ge=-2, le=2, description="mean difference of cosines")
    p95: float = Field(ge=0, le=2, description="95 of 100 differences are this large or less, either way")


class Latencies(BaseModel):
    """Time of the search stage."""

    live_ms: float = Field(ge=0, description="median of what answered, in milliseconds")
    candidate_ms: float = Field(
        ge=0, description="median of the candidate, in milliseconds, one question at a time"
    )
    ratio: float | None = Field(ge=0, description="the candidate's through the other; null where that is 0")


class ShadowState(BaseModel):
    """A candidate compared with what answers; figures are of the latest comparisons."""

    version: Version = Field(description="the candidate, as an answer of it would name it")
    against: str | None = Field(description="version that answered last; null where nothing was asked yet")
    share: float = Field(gt=0, le=1, description="share of questions that are put to it too")
    since: datetime = Field(description="when the comparison began, in UTC")
    compared: int = Field(
        ge=0, description="questions answered by both; the figures are of the latest 10,000"
    )
    dropped: int = Field(ge=0, description="questions that came faster than they were compared")
    failed: dict[str, int] = Field(
        description="questions that it had no answer to, by why: unknown-item, unknown-relation, refused, failed"
    )
    error_share: float | None = Field(
        ge=0, le=1, description="their share of all that were put to it; null where none was"
    )
    overlap: Overlaps | None = Field(description="of the items; null where nothing was compared yet")
    score_shift: ScoreShift | None = Field(description="of the scores; null where no item was common")
    rank_correlation: float | None = Field(
        ge=-1,
        le=1,
        description="mean of Spearman's rank correlation over common items; null where none was had",
    )
    latency: Latencies | None = Field(description="of the search; null where nothing was compared yet")

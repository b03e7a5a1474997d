"""Ask a running server from Python: `Client`, and `AsyncClient` with the same methods, awaited.

    call       one request: what is sent, how its answer is read, and whether it may be sent twice
    calls      the call of every route, with the types of what it takes
    attempts   when a call is sent again, and what went wrong when it is not
    sync, asynchronous   the two clients, which only send and wait
    errors     what they raise

Importing this loads httpx and pydantic, and nothing of what a server needs.
"""

from .async_client import AsyncClient
from .endpoints import (
    Artifacts,
    Change,
    Claim,
    Condition,
    IdentifiedItem,
    InWords,
    ItemFields,
    NewItem,
    OfQuery,
    PictureSource,
    Promoted,
    Retrieval,
    Weighted,
)
from .errors import (
    AdditionFailed,
    ApiError,
    Conflict,
    ConnectionFailed,
    Forbidden,
    Invalid,
    NotFound,
    Overloaded,
    RcmlClientError,
    ServerFailed,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
)
from .sync_client import Client

__all__ = [
    "AdditionFailed",
    "ApiError",
    "Artifacts",
    "AsyncClient",
    "Change",
    "Claim",
    "Client",
    "Condition",
    "Conflict",
    "ConnectionFailed",
    "Forbidden",
    "IdentifiedItem",
    "InWords",
    "Invalid",
    "ItemFields",
    "NewItem",
    "NotFound",
    "OfQuery",
    "Overloaded",
    "PictureSource",
    "Promoted",
    "RcmlClientError",
    "Retrieval",
    "ServerFailed",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "Weighted",
]

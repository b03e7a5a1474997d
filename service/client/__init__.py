"""Python clients for a running server: `Client`, and `AsyncClient` with the same methods for asyncio.

    request          one call: what it sends, how its response is parsed, and whether it may be repeated
    endpoints        the call to each route, with the types of its arguments
    retries          when a call is retried, and which error is raised when it is not
    server_address   the base URL, and the headers of every request
    sync_client, async_client   the two clients, which only send and wait
    errors           the exceptions that the clients raise

Importing this package loads httpx and pydantic, but none of the server's own dependencies.
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

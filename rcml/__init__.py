"""The names that most programs need, each loaded when it is first used.

    from rcml import Client       ask a running server; needs httpx and pydantic alone
    from rcml import Encoder      encode items and relations with a checkpoint
    from rcml import Index        open an index: search it, change it

`pip install rcml` brings what `Client` and `AsyncClient` need; `rcml[cpu]` and `rcml[gpu]` bring the rest.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from model import __version__

from .missing import MissingExtraError, missing_extra

if TYPE_CHECKING:
    from indexes.index import Index
    from model.encoder.encoder import Encoder
    from service.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "Encoder", "Index", "MissingExtraError", "__version__"]

_MODULES = {
    "AsyncClient": "service.client",
    "Client": "service.client",
    "Encoder": "model.encoder.encoder",
    "Index": "indexes.index",
}


def __getattr__(name: str) -> Any:
    """Load `name` on first use.

    Raises:
        AttributeError: rcml has no such name.
        MissingExtraError: it needs packages that are not installed; the message is the pip command.
    """
    if name not in _MODULES:
        raise AttributeError(f"module 'rcml' has no attribute {name!r}; it has {', '.join(__all__)}")
    with missing_extra(f"rcml.{name}"):
        value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List what can be imported from here."""
    return [*__all__]

"""Public API of rcml; each name is loaded on first use.

    from rcml import Client       query a running server; requires only httpx and pydantic
    from rcml import Encoder      encode items and relations with a checkpoint
    from rcml import Index        open an index, search it and change it

`pip install rcml` installs what `Client` and `AsyncClient` require. The extras `rcml[cpu]` and `rcml[gpu]` install what
the other names require.
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
        AttributeError: rcml has no attribute `name`.
        MissingExtraError: `name` requires a package that is not installed. The message contains the pip command.
    """
    if name not in _MODULES:
        raise AttributeError(f"Module 'rcml' has no attribute {name!r}. It has {', '.join(__all__)}.")
    with missing_extra(f"rcml.{name}"):
        value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return [*__all__]

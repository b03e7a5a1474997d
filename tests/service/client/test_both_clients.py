"""Tests that both clients have the same methods: names, parameters, defaults, return types and docstrings."""

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from types import GenericAlias
from typing import Any, get_args, get_origin, get_type_hints

import httpx
import pytest

from service.client import AsyncClient, Client

SAME_BY_ANOTHER_NAME = {"close": "aclose"}
"""Methods whose names differ between the clients, as they do in httpx."""

METHODS = [name for name in vars(Client) if not name.startswith("_")]


def awaited(annotation: Any) -> Any:
    """Return the synchronous counterpart of an annotation of an asynchronous method."""
    if get_origin(annotation) is AsyncIterator:
        return GenericAlias(Iterator, get_args(annotation))
    return httpx.BaseTransport | None if annotation == httpx.AsyncBaseTransport | None else annotation


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    return [(one.name, one.kind, one.default) for one in inspect.signature(function).parameters.values()]


def annotations(function: Callable[..., Any]) -> dict[str, Any]:
    return {name: awaited(kind) for name, kind in get_type_hints(function, include_extras=True).items()}


def test_both_clients_have_same_methods() -> None:
    expected = [SAME_BY_ANOTHER_NAME.get(name, name) for name in METHODS]
    assert [name for name in vars(AsyncClient) if not name.startswith("_")] == expected
    assert len(METHODS) > 25


@pytest.mark.parametrize("name", ["__init__", *METHODS])
def test_method_has_same_signature_and_docstring_in_both_clients(name: str) -> None:
    method, other = getattr(Client, name), getattr(AsyncClient, SAME_BY_ANOTHER_NAME.get(name, name))
    assert parameters(method) == parameters(other)
    assert annotations(method) == annotations(other)
    assert method.__doc__ == other.__doc__


@pytest.mark.parametrize("name", METHODS)
def test_async_client_methods_are_coroutines_or_async_generators(name: str) -> None:
    method = getattr(AsyncClient, SAME_BY_ANOTHER_NAME.get(name, name))
    assert inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)

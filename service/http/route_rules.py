"""Route rules: one table with the required role, the deadline and the body limit of every route.

`middleware/auth.py` enforces the role, `middleware/deadline.py` the deadline, and `limits.py` looks up the body limit.
The OpenAPI document declares the role. A route that is missing from the table requires an admin key, so forgetting a
route never exposes it.
"""

import re
from enum import Enum, StrEnum, auto
from functools import cache
from typing import NamedTuple

from starlette.types import Scope

SCOPE_KEY_NAME = "rcml.key"
"""Scope entry that holds the name of the request's API key.

The value is None if the request has no valid key. The entry is absent if the server has no keys.
"""

SCOPE_CHARGE = "rcml.charge"
"""Scope entry with a function that charges the cost of the request to its caller; absent if there is no rate limit."""


class Role(StrEnum):
    """Role that a route requires."""

    OPEN = "open"
    READ = "read"
    ADMIN = "admin"


class Encodes(Enum):
    """Requests of a route that need the network."""

    NOTHING = auto()
    NEW_ITEMS = auto()
    """Requests with the text or the picture of a new item, or with the description of a relation."""
    ALWAYS = auto()


class RouteRule(NamedTuple):
    """Requirements and limits of a route.

    A slow route does work that may take longer than the normal deadline. A streaming route reads its body in pieces,
    so the body may be larger than memory: its limit is `--max-bulk-bytes` instead of `--max-body-bytes`. An overloaded
    server refuses requests (`admission.py`) except those of urgent routes, with which it is watched and operated. Of
    several workers, only one answers the requests of central routes (`service/lifecycle/one_server.py`).
    """

    access: Role
    slow: bool = False
    streaming: bool = False
    encodes: Encodes = Encodes.NOTHING
    urgent: bool = False
    central: bool = False


_OPEN, _READ, _ADMIN = RouteRule(Role.OPEN), RouteRule(Role.READ), RouteRule(Role.ADMIN)
_PROBE, _FIGURES = RouteRule(Role.OPEN, urgent=True), RouteRule(Role.READ, urgent=True)
_QUERY = RouteRule(Role.READ, encodes=Encodes.NEW_ITEMS)
_EXPLAIN, _PUT = RouteRule(Role.READ, encodes=Encodes.ALWAYS), RouteRule(Role.ADMIN, encodes=Encodes.ALWAYS)
_BULK = RouteRule(Role.ADMIN, slow=True, streaming=True)
_OPERATE = RouteRule(Role.ADMIN, slow=True, urgent=True)
_RELATIONS = RouteRule(Role.READ, central=True)
_ADD_RELATION = RouteRule(Role.ADMIN, central=True)
_DELETE_RELATION = RouteRule(Role.ADMIN, slow=True, central=True)

ROUTE_RULES: dict[tuple[str, str], RouteRule] = {
    ("GET", "/"): _OPEN,
    ("GET", "/docs"): _OPEN,
    ("GET", "/openapi.json"): _OPEN,
    ("GET", "/static/{path}"): _OPEN,
    ("GET", "/livez"): _PROBE,
    ("GET", "/readyz"): _PROBE,
    ("GET", "/info"): _FIGURES,
    ("GET", "/metrics"): _FIGURES,
    ("POST", "/retrieve"): _QUERY,
    ("POST", "/retrieve/batch"): _QUERY,
    ("POST", "/relation-type"): _QUERY,
    ("POST", "/relation-type/batch"): _QUERY,
    ("POST", "/validity"): _QUERY,
    ("POST", "/validity/batch"): _QUERY,
    ("POST", "/explain"): _EXPLAIN,
    ("POST", "/explain/heat-map"): _EXPLAIN,
    ("POST", "/embeddings"): _QUERY,
    ("GET", "/relations"): _RELATIONS,
    ("GET", "/relations/{relation_id}"): _RELATIONS,
    ("POST", "/relations"): _ADD_RELATION,
    ("DELETE", "/relations/{relation_id}"): _DELETE_RELATION,
    ("GET", "/categories"): _READ,
    ("GET", "/items"): _READ,
    ("GET", "/items/{item_id}"): _READ,
    ("GET", "/items/{item_id}/image"): _READ,
    ("PUT", "/items/{item_id}"): _PUT,
    ("DELETE", "/items/{item_id}"): _ADMIN,
    ("POST", "/items/bulk"): _BULK,
    ("POST", "/admin/reload"): _OPERATE,
    ("GET", "/admin/shadow"): _ADMIN,
    ("POST", "/admin/shadow"): _OPERATE,
    ("DELETE", "/admin/shadow"): _ADMIN,
}
"""Rules by method and path, with path parameters in braces. HEAD follows the rule of GET."""


def rule_of(method: str, path: str) -> RouteRule:
    """Return the rule for a request path or a path template of the table, with at most two look-ups."""
    if method == "HEAD":
        method = "GET"
    rule = ROUTE_RULES.get((method, path))
    if rule is None:
        rule = _BELOW.get((method, path[: path.find("/", 1) + 1]), _ADMIN)
    return rule


def methods_of(path: str) -> list[str]:
    """Return the methods that a path supports, in alphabetical order."""
    methods = {method for method, template in ROUTE_RULES if _pattern(template).fullmatch(path)}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


@cache
def _pattern(template: str) -> re.Pattern[str]:
    """Compile a path template of the table. A parameter matches any characters, including slashes."""
    return re.compile(re.sub(r"\\{\w+\\}", ".+", re.escape(template)))


def is_stranger(scope: Scope) -> bool:
    """Return whether the server has API keys but the request has no valid one.

    Such a request reaches only open routes.
    """
    return scope.get(SCOPE_KEY_NAME, "") is None


def _by_first_step() -> dict[tuple[str, str], RouteRule]:
    """Return the rules of all paths that have parameters, by method and first path segment, such as `/items/`."""
    below: dict[tuple[str, str], RouteRule] = {}
    for (method, path), rule in ROUTE_RULES.items():
        if "{" in path:
            step = path[: path.find("/", 1) + 1]
            same = below.setdefault((method, step), rule)
            assert same == rule, (
                f"all paths that start with {step} and have parameters must have the same rule for {method}"
            )
            assert "{" not in step
    return below


_BELOW = _by_first_step()

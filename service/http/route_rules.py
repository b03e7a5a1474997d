"""Rules of the routes: who may ask, and how much time and how many bytes it may take; one table with a line a route.

`middleware/auth.py` enforces the access, the deadline and the limits on bodies read theirs here, and the OpenAPI
document declares it. A route that is not in the table is for admin keys alone: one that was forgotten is closed.
"""

import re
from enum import StrEnum
from functools import cache
from typing import NamedTuple

from starlette.types import Scope

SCOPE_KEY_NAME = "rcml.key"
"""Key of a request's scope that holds the name of its API key (None: it has none); absent on a server without keys."""


class Role(StrEnum):
    """What a request has to bring."""

    OPEN = "open"
    READ = "read"
    ADMIN = "admin"


class RouteRule(NamedTuple):
    """What a route asks of its caller.

    A slow one does work that outlasts the deadline of the others. A streaming one reads its body piece by piece, so
    that it may be longer than memory has room for: `--max-bulk-bytes` bounds it instead of `--max-body-bytes`.
    """

    access: Role
    slow: bool = False
    streaming: bool = False


_OPEN, _READ, _ADMIN = RouteRule(Role.OPEN), RouteRule(Role.READ), RouteRule(Role.ADMIN)
_SLOW, _BULK = RouteRule(Role.ADMIN, slow=True), RouteRule(Role.ADMIN, slow=True, streaming=True)

ROUTE_RULES: dict[tuple[str, str], RouteRule] = {
    ("GET", "/"): _OPEN,
    ("GET", "/docs"): _OPEN,
    ("GET", "/openapi.json"): _OPEN,
    ("GET", "/static/{path}"): _OPEN,
    ("GET", "/livez"): _OPEN,
    ("GET", "/readyz"): _OPEN,
    ("GET", "/info"): _READ,
    ("GET", "/metrics"): _READ,
    ("POST", "/retrieve"): _READ,
    ("POST", "/retrieve/batch"): _READ,
    ("POST", "/relation-type"): _READ,
    ("POST", "/relation-type/batch"): _READ,
    ("POST", "/validity"): _READ,
    ("POST", "/validity/batch"): _READ,
    ("POST", "/explain"): _READ,
    ("POST", "/explain/heat-map"): _READ,
    ("POST", "/embeddings"): _READ,
    ("GET", "/relations"): _READ,
    ("GET", "/relations/{relation_id}"): _READ,
    ("POST", "/relations"): _ADMIN,
    ("DELETE", "/relations/{relation_id}"): _SLOW,
    ("GET", "/items"): _READ,
    ("GET", "/items/{item_id}"): _READ,
    ("GET", "/items/{item_id}/image"): _READ,
    ("PUT", "/items/{item_id}"): _ADMIN,
    ("DELETE", "/items/{item_id}"): _ADMIN,
    ("POST", "/items/bulk"): _BULK,
    ("POST", "/admin/reload"): _SLOW,
    ("GET", "/admin/shadow"): _ADMIN,
    ("POST", "/admin/shadow"): _SLOW,
    ("DELETE", "/admin/shadow"): _ADMIN,
}
"""By method and path, with path parameters in braces; HEAD is as GET."""


def rule_of(method: str, path: str) -> RouteRule:
    """Return the rule of a request (or of a path of the table itself): two look-ups at most."""
    if method == "HEAD":
        method = "GET"
    rule = ROUTE_RULES.get((method, path))
    if rule is None:
        rule = _BELOW.get((method, path[: path.find("/", 1) + 1]), _ADMIN)
    return rule


def methods_of(path: str) -> list[str]:
    """List the methods that a path takes."""
    return sorted({method for method, template in ROUTE_RULES if _pattern(template).fullmatch(path)})


@cache
def _pattern(template: str) -> re.Pattern[str]:
    """Compile a path of the table: a parameter may hold any characters, slashes among them."""
    return re.compile(re.sub(r"\\{\w+\\}", ".+", re.escape(template)))


def is_stranger(scope: Scope) -> bool:
    """Tell whether the server has keys and the request brought none of them, as it may to an open route."""
    return scope.get(SCOPE_KEY_NAME, "") is None


def _by_first_step() -> dict[tuple[str, str], RouteRule]:
    """Index the rules of paths with parameters by the step that comes before all of them, as in `/items/`."""
    below: dict[tuple[str, str], RouteRule] = {}
    for (method, path), rule in ROUTE_RULES.items():
        if "{" in path:
            step = path[: path.find("/", 1) + 1]
            same = below.setdefault((method, step), rule)
            assert same == rule, f"paths with parameters below {step} must have one rule for {method}"
            assert "{" not in step
    return below


_BELOW = _by_first_step()

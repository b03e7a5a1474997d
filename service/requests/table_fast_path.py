"""Fast path to the answers of `POST /retrieve` that the precomputed table contains.

A task, the framework's request and eight middlewares take several times as long as such an answer. The fast path
answers within the callback of the connection. It applies the same rules as the middlewares, by the same functions:
proxies, path prefix, access control, rate limit, deadline, security headers, metrics and access log. Whatever is not a
plain question with an answer in the table is left to the application, as is every request that is rejected.
"""

from dataclasses import dataclass
from functools import partial
from time import monotonic, perf_counter

from starlette.routing import Route
from starlette.types import Scope

from service.http.admission import SCOPE_BEGAN
from service.http.dispatch import Answered, FastAnswer
from service.http.limits import without_prefix
from service.http.route_rules import SCOPE_KEY_NAME
from service.lifecycle.engine_holder import EngineHolder
from service.lifecycle.membership import Membership
from service.lifecycle.shadow_run import Shadow
from service.middleware.auth import Guard, pass_decision
from service.middleware.proxy import TrustedProxies
from service.middleware.request_log import REQUEST_ID_HEADER, asked_request_id, note_answered
from service.middleware.security_headers import private, security_headers
from service.telemetry.logs import REQUEST_ID, logger
from service.telemetry.prometheus import Metrics

from .direct_routes import plain_length
from .retrieve_answer import PlainQuestion, plain_question, precomputed_answer, turn_of

PATH = "/retrieve"

MAX_BODY_BYTES = 1_024
"""Maximum size of a body that the fast path reads. The route decides whether a longer one is read at all."""

_ROUTE = Route(PATH, lambda request: None)
"""Route by which the access log and the metrics name the request."""


@dataclass(frozen=True)
class Rules:
    """Rules of an application that also apply to the fast path."""

    guard: Guard
    trusted: TrustedProxies
    deadline: float
    """Seconds after which a request is overdue."""
    root_path: str = ""
    shared: bool = False
    """Whether pages of some other sites may read responses. The application answers the requests of such pages."""


class TableFastPath:
    """Fast path of one application; see `service.http.dispatch.FastPath`."""

    def __init__(
        self,
        rules: Rules,
        holder: EngineHolder,
        shadow: Shadow,
        metrics: Metrics,
        membership: Membership | None = None,
    ) -> None:
        """Create the fast path; `membership` is that of a worker among several."""
        self._rules = rules
        self._holder = holder
        self._shadow = shadow
        self._metrics = metrics
        self._membership = membership
        # A cache must not give this answer to a page of another site, whose answer has further fields.
        vary = [(b"vary", b"Origin")] if rules.shared else []
        fields = [(b"content-type", b"application/json"), *vary, *security_headers(rules.shared)]
        self._fields, self._private_fields = _lines(fields), _lines(private(fields))

    def take(self, scope: Scope, body: bytes | bytearray, answered: Answered) -> bool:
        """Take a plain question; see `FastPath.take`."""
        if without_prefix(scope["path"], self._rules.root_path) != PATH or not self._is_plain(scope):
            return False
        begun = perf_counter()
        inner = {**scope, "path": PATH, "route": _ROUTE}
        self._rules.trusted.restore(inner)
        question = plain_question(body) if self._rules.guard.check(inner) is None else None
        if question is None:
            pass_decision(inner, scope)
            return False
        self._metrics.began()
        engine = self._holder.engine
        engine.turns.call(
            turn_of(question, engine), partial(self._answer, question, scope, inner, begun, answered)
        )
        return True

    def _is_plain(self, scope: Scope) -> bool:
        """Return whether nothing but access control and the body can stand against a fast answer."""
        length = plain_length(scope)
        return (
            length is not None
            and length <= MAX_BODY_BYTES
            and self._holder.ready
            and not self._is_overdue(scope)
            and not (self._rules.shared and any(name == b"origin" for name, _ in scope["headers"]))
        )

    def _answer(
        self, question: PlainQuestion, scope: Scope, inner: Scope, begun: float, answered: Answered
    ) -> None:
        request = asked_request_id(inner)
        outer = REQUEST_ID.set(request)
        try:
            content = None if self._is_overdue(scope) else self._content(question, begun)
        except Exception:
            logger.exception("The fast path failed, so the application answers.")
            content = None
        if content is not None:
            note_answered(self._metrics, inner, 200, perf_counter() - begun, len(content))
        REQUEST_ID.reset(outer)
        if content is None:
            self._metrics.in_flight -= 1  # the application counts the request again
            pass_decision(inner, scope)
            answered(None)
            return
        fields = self._private_fields if inner.get(SCOPE_KEY_NAME) else self._fields
        answered(FastAnswer(fields % (len(content), request.encode()), content))

    def _is_overdue(self, scope: Scope) -> bool:
        began: float = scope[SCOPE_BEGAN]
        return monotonic() >= began + self._rules.deadline

    def _content(self, question: PlainQuestion, begun: float) -> bytes | None:
        """Return the JSON of the answer, or None if the application must answer."""
        if self._membership is not None:
            self._membership.adopt()
            if self._holder.engine.changes.behind:
                return None
        if self._shadow.is_running:
            return None
        return precomputed_answer(question, self._holder.engine, self._metrics, begun)


def _lines(fields: list[tuple[bytes, bytes]]) -> bytes:
    """Return header fields as they are sent, with gaps for the length of the content and the ID of the request."""
    named = [(b"content-length", b"%d"), *fields, (REQUEST_ID_HEADER.lower().encode(), b"%b")]
    return b"".join(b"%b: %b\r\n" % field for field in named)

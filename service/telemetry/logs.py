"""One line of log for each thing that happened: JSON for machines, plain on a terminal; secrets in neither.

Every line that is written while a request is answered carries that request's id, uvicorn's tracebacks included:
the client that got a 500 has the same id. `service/serve.py` hands `configuration` to uvicorn, whose own log of
requests is off: `service/middleware/request_log.py` writes that line.
"""

import json
import logging
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from random import getrandbits
from typing import Any

from service.settings import LogFormat, LogLevel

from .tracing import trace_id

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request that is being answered; threads started for it by anyio have it too."""

logger = logging.getLogger("rcml")
"""For all that the service has to say while it serves."""

BANNER_LOGGER = "rcml.server"
"""Logger that writes whatever the level: where the server is, and what it serves."""

_requests = logging.getLogger("rcml.requests")

_WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{1,128}")

_QUOTE = r"""\\?["']"""
_NAME = r"\b(?:authorization|x-api-key|api[_-]?key|\w*password|passwd|\w*secret|(?:access|refresh)_token)"
_SCHEME = r"(?:(?:bearer|basic)\s+)?"
_SECRETS = re.compile(
    # after its name and in quotes, as in JSON or in what Python shows of a dict or a tuple
    rf"""(?P<quoted>{_NAME}(?:{_QUOTE}\s*[:=,]|\s*[:=])\s*b?{_QUOTE}{_SCHEME})[^"'\\]+"""
    # after its name, as in a header, a query or a setting
    rf"""|(?P<plain>{_NAME}\s*[:=]\s*{_SCHEME})[^\s"'\\,;&)\]}}]+"""
    # credentials as they stand in headers
    r"|(?P<scheme>\b(?:bearer\s+(?=\S{8})|basic\s+(?=\S{16})))[\w.~+/=-]+"
    # a password in a URL
    r"""|(?P<user>://[^\s/:@"'\\]*:)[^\s/"'\\]+(?=@)"""
    # a key as `rcml key` makes it
    r"|(?<![\w-])rcml_[\w-]{43}(?![\w-])",
    re.IGNORECASE,
)
_HINTS = ("authorization", "api", "pass", "secret", "token", "bearer", "basic", "://", "rcml_")
"""Without any of these, a text has no secret that could be told; to look for them costs a tenth of the pattern."""

_HIDDEN = "[hidden]"

# So that nothing a client sends can pass for another line, or steer a terminal.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_CONTROLS_IN_TRACEBACKS = {code: shown for code, shown in _CONTROLS.items() if code not in b"\t\n"}
_SAID_BY_MESSAGE = frozenset({"method", "route", "status"})


def request_id(asked: str | None) -> str:
    """Return the id that a client asked for, if it is well-formed, or make a new one."""
    return asked if asked is not None and _WELL_FORMED.fullmatch(asked) else f"{getrandbits(128):032x}"


def redact(text: str) -> str:
    """Hide the keys, passwords and tokens in `text`, as far as they can be recognised."""
    return _SECRETS.sub(_hide, text) if _may_hold_secrets(text) else text


def logs_requests(level: int) -> bool:
    """Tell whether lines of this level are written, so that others need not be made."""
    return _requests.isEnabledFor(level)


def log_request(level: int, message: str, fields: Mapping[str, str | int | float]) -> None:
    """Write the line of a request that was answered."""
    # Made by hand, since `logger.info` walks the stack to find its caller.
    record = logging.LogRecord(_requests.name, level, "", 0, message, (), None)
    record.fields = fields
    _requests.handle(record)


def chosen_format(log_format: LogFormat) -> LogFormat:
    """Resolve `auto`: text if stderr is a terminal, JSON otherwise."""
    if log_format == "auto":
        return "text" if sys.stderr.isatty() else "json"
    return log_format


def configuration(level: LogLevel, log_format: LogFormat) -> dict[str, Any]:
    """Make the `logging.config.dictConfig`: all to stderr; of others' loggers only warnings."""
    formatter = Json if chosen_format(log_format) == "json" else Text
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"chosen": {"()": formatter}},
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": "chosen", "stream": "ext://sys.stderr"}
        },
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {
            "rcml": {"level": level.upper()},
            "uvicorn": {"level": level.upper()},
            BANNER_LOGGER: {"level": "INFO"},
            # It warns of every broken upload, which is answered with 400.
            "python_multipart": {"level": "ERROR"},
        },
    }


class Json(logging.Formatter):
    """A line of JSON: `time`, `level`, `logger`, `message`, the ids there are, and what else is known."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, str | int | float] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (request := REQUEST_ID.get()) is not None:
            line["request_id"] = request
        if (trace := trace_id()) is not None:
            line["trace_id"] = trace
        line.update(_fields(record))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        written = json.dumps(line)
        if not _may_hold_secrets(written):
            return written
        # Not in what is written: there, a word after a line break begins with the n of \\n.
        return json.dumps(
            {name: redact(said) if isinstance(said, str) else said for name, said in line.items()}
        )


class Text(logging.Formatter):
    """A line for people; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        known = {name: value for name, value in _fields(record).items() if name not in _SAID_BY_MESSAGE}
        if (request := REQUEST_ID.get()) is not None:
            known["request_id"] = request
        line = f"{time} {record.levelname.lower():<8} {record.getMessage()}"
        line += "".join(f"  {name}={value}" for name, value in known.items())
        line = line.translate(_CONTROLS)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info).translate(_CONTROLS_IN_TRACEBACKS)
        return redact(line)


def _may_hold_secrets(text: str) -> bool:
    text = text.lower()
    return any(hint in text for hint in _HINTS)


def _fields(record: logging.LogRecord) -> Mapping[str, str | int | float]:
    fields: Mapping[str, str | int | float] = getattr(record, "fields", {})
    return fields


def _hide(found: re.Match[str]) -> str:
    return "".join(kept for kept in found.groupdict().values() if kept) + _HIDDEN

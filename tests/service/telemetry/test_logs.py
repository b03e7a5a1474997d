"""Tests of the log formats: JSON and plain lines that carry the request ID and hide secrets."""

import json
import logging
import sys
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.telemetry.logs import REQUEST_ID, Json, Text, chosen_format, configuration, redact

SECRET = "s3cr3t-Value.9"
KEY = "rcml_" + "Ab3-_" * 8 + "xyz"


def record(
    message: str, *arguments: object, level: int = logging.WARNING, **extra: object
) -> logging.LogRecord:
    made = logging.LogRecord("rcml", level, __file__, 1, message, arguments, None)
    vars(made).update(extra)
    return made


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"Authorization: Bearer {SECRET}", "Authorization: Bearer [hidden]"),
        (f"authorization: Basic {SECRET}", "authorization: Basic [hidden]"),
        (f"X-API-Key: {SECRET}", "X-API-Key: [hidden]"),
        (f"{{'x-api-key': '{SECRET}', 'a': 1}}", "{'x-api-key': '[hidden]', 'a': 1}"),
        (
            f"[(b'authorization', b'Bearer {SECRET}'), (b'a', b'b')]",
            "[(b'authorization', b'Bearer [hidden]'), (b'a', b'b')]",
        ),
        (f"[(b'x-api-key', b'{SECRET}')]", "[(b'x-api-key', b'[hidden]')]"),
        (f"GET /x?api_key={SECRET}&k=1", "GET /x?api_key=[hidden]&k=1"),
        (f"postgresql://rcml:{SECRET}@db:5432/rcml", "postgresql://rcml:[hidden]@db:5432/rcml"),
        ("https://user:p@ss:w@host/x", "https://user:[hidden]@host/x"),
        (f"password={SECRET} host=db", "password=[hidden] host=db"),
        (f'{{"PGPASSWORD": "{SECRET}"}}', '{"PGPASSWORD": "[hidden]"}'),
        ("password = 'two words' host=db", "password = '[hidden]' host=db"),
        (f"client_secret={SECRET}", "client_secret=[hidden]"),
        (f"got {KEY} instead", "got [hidden] instead"),
        (f"sent Bearer {SECRET}", "sent Bearer [hidden]"),
    ],
)
def test_hides_secrets(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "rcml_request_duration_seconds_bucket 1",
        "http://127.0.0.1:8000/docs",
        "The bearer of a basic tent, and a password for it",
        "No item has the ID 'secret-santa'.",
        "Basic bed linen",
        "mail to a@b.example from 10:30 to 11:00",
    ],
)
def test_keeps_text_without_secrets(text: str) -> None:
    assert redact(text) == text


@given(st.text(), st.text(max_size=20), st.text(max_size=300))
def test_json_formatter_writes_any_message_as_one_line(message: str, name: str, value: str) -> None:
    line = Json().format(record("%s", message, fields={f"x{name}": value}))
    assert "\n" not in line
    assert line.isascii()
    read = json.loads(line)
    assert (read["level"], read["logger"]) == ("warning", "rcml")
    assert (read["message"], read[f"x{name}"]) == (redact(message), redact(value))


def test_time_is_in_utc_with_milliseconds() -> None:
    line = json.loads(Json().format(record("x", created=1_700_000_000.1234)))
    assert line["time"] == "2023-11-14T22:13:20.123+00:00"
    assert datetime.fromisoformat(line["time"]).timestamp() == 1_700_000_000.123


@pytest.mark.parametrize("formatter", [Json(), Text()])
def test_lines_of_request_carry_request_id(formatter: logging.Formatter) -> None:
    token = REQUEST_ID.set("r-77")
    try:
        assert "r-77" in formatter.format(record("x"))
    finally:
        REQUEST_ID.reset(token)
    assert "request_id" not in formatter.format(record("x"))


@pytest.mark.parametrize("formatter", [Json(), Text()])
def test_traceback_hides_secrets(formatter: logging.Formatter) -> None:
    try:
        raise ValueError(f"cannot reach postgresql://rcml:{SECRET}@db\nAuthorization: Bearer {SECRET}")
    except ValueError:
        line = formatter.format(record("It failed.", exc_info=sys.exc_info()))
    assert "Traceback" in line
    assert "postgresql://rcml:[hidden]@db" in line
    assert SECRET not in line


def test_client_input_cannot_break_line_or_control_terminal() -> None:
    line = Text().format(
        record("GET", fields={"path": "/a\n12:00:00 error forged\x1b[2J\x9b", "status": 200})
    )
    assert line.endswith("warning  GET  path=/a\\x0a12:00:00 error forged\\x1b[2J\\x9b")


def test_auto_format_is_json_without_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert chosen_format("auto") == "json"
    assert chosen_format("text") == "text"


def test_other_loggers_write_only_warnings() -> None:
    made = configuration("debug", "json")
    assert made["root"]["level"] == "WARNING"
    assert made["loggers"]["rcml"]["level"] == made["loggers"]["uvicorn"]["level"] == "DEBUG"

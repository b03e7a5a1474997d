"""Slow client detection, without sockets or a real clock."""

import pytest

from service.http.limits import Deadlines
from service.http.slow_clients import Progress, ProgressWatch, Stage, TooSlow

DEADLINES = Deadlines(head=4.0, idle=5.0, window=4.0, rate=100, linger=2.0, last_call=1.0)


def progress(
    stage: Stage, requests: int = 1, body: int = 0, awaited: bool = True, draining: bool = False
) -> Progress:
    return Progress(stage, requests, body, awaited, draining)


@pytest.mark.parametrize(
    ("there", "limit", "overdue"),
    [
        (progress("head"), 4.0, TooSlow.HEAD),
        (progress("idle", requests=0), 4.0, TooSlow.REQUEST),
        (progress("idle"), 5.0, TooSlow.REQUEST),
        (progress("idle", draining=True), 1.0, TooSlow.REQUEST),
        (progress("body"), 4.0, TooSlow.BODY),
        (progress("closed"), 2.0, TooSlow.CLOSE),
    ],
)
def test_a_client_is_too_slow_once_its_limit_has_passed(
    there: Progress, limit: float, overdue: TooSlow
) -> None:
    watch = ProgressWatch(0.0)
    watch.too_slow(0.0, there, DEADLINES)
    assert watch.too_slow(limit - 0.1, there, DEADLINES) is None
    assert watch.too_slow(limit, there, DEADLINES) is overdue


def test_a_client_that_waits_for_the_server_is_never_too_slow() -> None:
    watch = ProgressWatch(0.0)
    waiting = progress("idle", awaited=False)
    assert [watch.too_slow(now, waiting, DEADLINES) for now in (0.0, 100.0)] == [None, None]
    assert watch.too_slow(104.0, progress("idle"), DEADLINES) is None
    assert watch.too_slow(105.0, progress("idle"), DEADLINES) is TooSlow.REQUEST


def test_a_body_at_the_minimum_rate_has_no_time_limit() -> None:
    watch = ProgressWatch(0.0)
    looks = [watch.too_slow(now, progress("body", body=int(100 * now)), DEADLINES) for now in range(60)]
    assert looks == [None] * 60
    assert watch.too_slow(64.0, progress("body", body=5900 + 99), DEADLINES) is TooSlow.BODY


def test_a_response_must_be_read_at_the_minimum_rate() -> None:
    watch = ProgressWatch(0.0)
    assert not watch.reads_too_slowly(0.0, 1000, DEADLINES)
    assert not watch.reads_too_slowly(3.9, 1000, DEADLINES)
    assert not watch.reads_too_slowly(4.0, 600, DEADLINES)
    assert watch.reads_too_slowly(8.0, 201, DEADLINES)


def test_the_measurement_of_the_reading_rate_can_be_restarted() -> None:
    watch = ProgressWatch(0.0)
    assert not watch.reads_too_slowly(0.0, 1000, DEADLINES)
    watch.forget_reading()
    assert not watch.reads_too_slowly(5.0, 1000, DEADLINES)

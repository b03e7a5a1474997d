"""Tests of the heartbeats: stuck and ended workers are distinguished from busy and idle ones."""

from collections.abc import Iterator
from threading import Event, Thread

import pytest
from starlette.testclient import TestClient

from indexes.index import Index
from service.app import create_app
from service.engine.watchdog import Heartbeat
from service.settings import ServeConfig
from tests.indexes.fakes import FakeEncoder
from tests.service.conftest import served, wait_until_ready

from .test_index_follower import eventually


@pytest.fixture
def go_on() -> Iterator[Event]:
    """Provide an event on which simulated stuck work waits, and set it after the test."""
    event = Event()
    yield event
    event.set()


def test_idle_worker_is_healthy() -> None:
    heartbeat = Heartbeat("encoder", timeout_s=0.0)
    with heartbeat.working():
        pass
    assert heartbeat.stuck_reason is None


def test_worker_is_stuck_while_one_job_exceeds_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("service.engine.watchdog.monotonic", lambda: now)
    heartbeat = Heartbeat("encoder", timeout_s=30.0)
    with heartbeat.working():
        now = 130.0
        assert heartbeat.stuck_reason is None
        now = 131.0
        assert heartbeat.stuck_reason == (
            "The encoder has been busy with one job for 31 s, which exceeds the timeout of 30 s. "
            "Restart the server if the worker stays stuck."
        )
    assert heartbeat.stuck_reason is None


def test_timeout_applies_to_each_job_separately(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("service.engine.watchdog.monotonic", lambda: now)
    heartbeat = Heartbeat("encoder", timeout_s=30.0)
    for step in range(3):
        now = 20.0 * step
        with heartbeat.working():
            assert heartbeat.stuck_reason is None


def test_worker_is_healthy_after_a_failed_job() -> None:
    heartbeat = Heartbeat("encoder", timeout_s=0.0)
    with pytest.raises(ZeroDivisionError), heartbeat.working():
        raise ZeroDivisionError
    assert heartbeat.stuck_reason is None


ENDED = "The encoder's thread has ended. Restart the server, and report the traceback in its log."


def test_reports_the_end_of_a_thread_that_ran_a_job() -> None:
    heartbeat = Heartbeat("encoder")

    def work() -> None:
        with heartbeat.working():
            pass

    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert heartbeat.stuck_reason == ENDED


def test_reports_the_end_of_a_watched_thread_that_never_ran_a_job() -> None:
    heartbeat = Heartbeat("encoder")
    thread = Thread(target=lambda: None)
    thread.start()
    heartbeat.watch(thread)
    thread.join()
    assert heartbeat.stuck_reason == ENDED


def test_server_is_live_but_not_ready_while_a_worker_is_stuck(
    config: ServeConfig, go_on: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    hangs, hung = Event(), Event()
    refresh = Index.refresh

    def refresh_from_a_dead_disk(index: Index) -> None:
        if hangs.is_set():
            hung.set()
            assert go_on.wait(600)
        refresh(index)

    monkeypatch.setattr("service.engine.watchdog.monotonic", lambda: now)
    monkeypatch.setattr(Index, "refresh", refresh_from_a_dead_disk)
    impatient = config.model_copy(update={"worker_patience": 0.2})
    with TestClient(create_app(impatient, lambda *_: FakeEncoder())) as client:
        wait_until_ready(client)
        hangs.set()
        assert hung.wait(600)
        assert client.get("/readyz").status_code == 200
        now = 0.3
        problem = client.get("/readyz").json()
        assert problem["type"] == "urn:rcml:problem:not-ready"
        assert problem["detail"] == (
            "The follower has been busy with one job for 0 s, which exceeds the timeout of 0.2 s. "
            "Restart the server if the worker stays stuck."
        )
        assert client.get("/livez").status_code == client.get("/relations").status_code == 200
        go_on.set()
        wait_until_ready(client)


def test_failing_follower_continues_and_logs_its_traceback_once(
    config: ServeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = 0

    def fail(index: Index) -> None:
        nonlocal failures
        failures += 1
        raise OSError("the disk is gone")

    with served(config):
        monkeypatch.setattr(Index, "refresh", fail)
        with TestClient(create_app(config, lambda *_: FakeEncoder())) as other:
            eventually(lambda: failures > 2)
            assert other.get("/readyz").status_code == 200
    told = [record for record in caplog.records if record.getMessage() == "the disk is gone"]
    assert len(told) == 1
    assert told[0].exc_text is not None or told[0].exc_info is not None

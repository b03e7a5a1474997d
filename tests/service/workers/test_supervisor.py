"""Tests of the supervisor's messages to a worker."""

import multiprocessing
import signal
import time

import pytest

from service.shared.channel import Channel
from service.workers.supervisor import Child


def test_worker_that_takes_no_messages_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.shared.channel.SEND_TIMEOUT_S", 1)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(3_600,))
    process.start()
    child = Child(0, process, Channel(ours))
    child.tell("answer", content=10_000_000 * "x")
    process.join(600)
    assert process.exitcode == -signal.SIGKILL
    theirs.close()

"""Tests of the supervisor's messages to a worker, and of what it hears."""

import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from service.shared.channel import Channel
from service.shared.worker import WorkerPlace, create_shared
from service.workers.supervisor import Child, Supervisor


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


def mute_at_first(place: WorkerPlace, listener: socket.socket) -> None:
    """Close the way to the parent, as after a message that was cut off; the successor stops the parent instead."""
    mark = place.folder / "mute"
    if mark.exists():
        os.kill(os.getppid(), signal.SIGTERM)
    else:
        mark.touch()
        with socket.socket(fileno=os.dup(place.connection.fileno())) as same:
            same.shutdown(socket.SHUT_WR)
    time.sleep(3_600)


def test_worker_that_cannot_be_heard_is_replaced(tmp_path: Path) -> None:
    create_shared(tmp_path, 1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        supervisor = Supervisor(mute_at_first, 1, listener, tmp_path, print, 1, 3_600)
        assert supervisor.run() == signal.SIGTERM

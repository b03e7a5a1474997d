"""Tests of the channel between a worker and its parent."""

import multiprocessing

import pytest

from service.shared.channel import Channel


def test_receiver_of_a_message_that_was_cut_off_sees_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.shared.channel.SEND_TIMEOUT_S", 1)
    sender, receiver = map(Channel, multiprocessing.Pipe())
    assert sender.send("first")
    assert not sender.send("cut off", content=10_000_000 * "x")
    assert not sender.send("last")
    assert receiver.receive() == {"kind": "first"}
    assert receiver.receive() is None
    assert receiver.send("answer")
    assert sender.receive() == {"kind": "answer"}

"""The key file is read again: keys are added and revoked without a restart, and a broken file changes nothing."""

import asyncio
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from service.middleware import key_watch
from service.middleware.api_keys import Keys
from service.middleware.key_watch import KeyWatch
from service.settings import ServeConfig
from service.telemetry.prometheus import Metrics

OLD, NEW = b"old-key-of-the-shop", b"new-key-of-the-shop"


def line(secret: bytes) -> str:
    return f"shop read {sha256(secret).hexdigest()}\n"


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def by_rename(path: Path, text: str) -> None:
    other = path.with_suffix(".new")
    other.write_text(text)
    other.rename(path)


def by_link(path: Path, text: str) -> None:
    """Switch the folder behind a link, as Kubernetes does: keys -> ..data/keys, ..data -> ..2."""
    folder = path.parent / f"..{len(list(path.parent.iterdir()))}"
    folder.mkdir()
    (folder / "keys").write_text(text)
    (path.parent / "..tmp").symlink_to(folder.name)
    os.replace(path.parent / "..tmp", path.parent / "..data")
    if not path.is_symlink():
        path.unlink(missing_ok=True)
        path.symlink_to("..data/keys")


class Watched:
    """A watch over a key file with the key `OLD`, and what it reported."""

    def __init__(self, folder: Path, write: Callable[[Path, str], None] = in_place) -> None:
        self.path = folder / "keys"
        write(self.path, line(OLD))
        config = ServeConfig(index=folder, keys=self.path, host="0.0.0.0")
        self.keys = Keys.open(config)
        self.reports: list[bool] = []
        self.watch = KeyWatch(self.keys, config, self.reports.append)

    def look(self, times: int = 2) -> tuple[bool, bool]:
        """Return whether the old and the new key are valid after some looks."""
        for _ in range(times):
            self.watch.look()
        return self.keys.find(OLD) is not None, self.keys.find(NEW) is not None


@pytest.mark.parametrize("write", [in_place, by_rename, by_link])
def test_a_changed_file_revokes_the_old_key(tmp_path: Path, write: Callable[[Path, str], None]) -> None:
    watched = Watched(tmp_path, write)
    assert watched.look() == (True, False)
    write(watched.path, line(NEW))
    assert watched.look() == (False, True)
    assert watched.reports == [True]


def test_a_file_that_changes_while_the_server_starts_is_read_again(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    by_rename(watched.path, line(NEW))
    config = ServeConfig(index=tmp_path, keys=watched.path)
    watched.watch = KeyWatch(watched.keys, config, watched.reports.append)
    assert watched.look() == (False, True)


@pytest.mark.parametrize("text", ["shop read 123", "", "# none\n", "shop read\n", "\udcff"])
def test_a_broken_file_keeps_the_old_keys_and_says_so(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(tmp_path)
    watched.path.write_bytes(text.encode(errors="surrogateescape"))
    assert watched.look(5) == (True, False)
    assert watched.reports == [False]
    assert "The keys that were read before remain valid." in caplog.text
    in_place(watched.path, line(NEW))
    assert watched.look() == (False, True)
    assert watched.reports == [False, True]


def test_a_deleted_file_keeps_the_old_keys(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.path.unlink()
    assert (watched.look(), watched.reports) == ((True, False), [False])


def test_a_file_that_is_being_written_is_not_used(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    in_place(watched.path, "# the keys follow\n")
    assert watched.look(1) == (True, False)
    in_place(watched.path, line(NEW))
    assert watched.look(1) == (True, False)
    assert watched.look(1) == (False, True)
    assert watched.reports == [True]


def test_the_file_is_read_while_the_server_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_watch, "READ_INTERVAL_S", 0.001)
    watched = Watched(tmp_path)
    by_rename(watched.path, line(NEW))

    async def until_read() -> None:
        task = asyncio.create_task(watched.watch.run())
        while not watched.reports:
            await asyncio.sleep(0.001)
        task.cancel()

    asyncio.run(until_read())
    assert watched.keys.find(OLD) is None


def test_a_metric_says_whether_the_file_is_in_use() -> None:
    metrics = Metrics()
    assert b"rcml_key_file_valid 1.0" in metrics.exposition("")[0]
    metrics.key_file_read(False)
    assert b"rcml_key_file_valid 0.0" in metrics.exposition("")[0]


def test_a_pipe_is_read_once_and_a_pipe_in_place_of_the_file_is_not_waited_for(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.path.unlink()
    os.mkfifo(watched.path)
    assert (watched.look(), watched.reports) == ((True, False), [False])
    begun_with_pipe = KeyWatch(
        watched.keys, ServeConfig(index=tmp_path, keys=watched.path), watched.reports.append
    )
    asyncio.run(begun_with_pipe.run())
    assert watched.reports == [False]

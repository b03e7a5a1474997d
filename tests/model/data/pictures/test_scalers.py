"""Workers that scale pictures: the same outcomes by threads and by processes, and no worker that outlives its run."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from model.data.pictures import scalers
from model.data.pictures.picture_cache import PictureCache
from model.data.pictures.scalers import Scalers
from model.errors import PictureError


def jpeg(shade: int, side: int = 64) -> bytes:
    file = BytesIO()
    Image.new("L", (side, side), shade).save(file, "JPEG")
    return file.getvalue()


def stored(cache: PictureCache, contents: list[bytes], pictures: int) -> list[str]:
    """Store pictures at once; return for each "" or the error."""

    async def run() -> list[str]:
        async with Scalers(cache, pictures) as workers:
            outcomes = await asyncio.gather(
                *(workers.store(f"http://shop.example/{n}", content) for n, content in enumerate(contents)),
                return_exceptions=True,
            )
        return [str(outcome or "") for outcome in outcomes]

    return asyncio.run(run())


@pytest.mark.parametrize("pictures", [1, scalers.MIN_FOR_PROCESSES])
def test_threads_and_processes_store_the_same(pictures: int, tmp_path: Path) -> None:
    contents = [jpeg(n) for n in range(100)]
    contents[7], contents[50] = b"no picture", jpeg(50)[:300]
    with PictureCache.open(tmp_path, 32) as cache:
        outcomes = stored(cache, contents, pictures)
        assert {n: outcome for n, outcome in enumerate(outcomes) if outcome} == {
            7: "The picture cannot be decoded: it is not a JPEG, PNG or WebP. Send a complete JPEG, PNG or WebP file.",
            50: "The picture cannot be decoded: it is damaged. Send a complete JPEG, PNG or WebP file.",
        }
        assert len(cache.files) == 98
        for n in (0, 31, 99):
            content, suffix = cache.read(f"http://shop.example/{n}") or (b"", "")
            with Image.open(BytesIO(content)) as picture:
                assert (suffix, picture.size) == (".jpg", (32, 32))
                assert picture.convert("L").getpixel((5, 5)) == pytest.approx(n, abs=1)
    with PictureCache.open(tmp_path, 32) as again:
        assert len(again.files) == 98


def test_a_worker_that_ends_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scalers, "scale_all", _end)
    with PictureCache.open(tmp_path, 32) as cache:
        [outcome] = stored(cache, [jpeg(1)], scalers.MIN_FOR_PROCESSES)
    assert "ended, perhaps for want of memory. Run again; what was fetched is kept." in outcome


def test_a_cancelled_caller_does_not_hold_up_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scalers, "available_cores", lambda: 1)

    async def run() -> None:
        async with Scalers(cache, 3) as workers:
            callers = [asyncio.create_task(workers.store(str(n), jpeg(n))) for n in range(3)]
            await asyncio.sleep(0)  # the second and third picture wait for the first, and are scaled together
            callers[1].cancel()
            async with asyncio.timeout(20):
                await asyncio.gather(callers[0], callers[2])

    with PictureCache.open(tmp_path, 32) as cache:
        asyncio.run(run())
        assert {"0", "2"} <= {*cache.files}


def _end(folder: Path, side: int, contents: list[bytes]) -> list[str | PictureError]:
    os._exit(1)


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, content: bytes, suffix: str) -> str:
        raise OSError(28, "No space left on device", str(folder / "x"))

    monkeypatch.setattr(scalers, "store_picture", full)
    with PictureCache.open(tmp_path, 32) as cache:
        outcomes = stored(cache, [jpeg(1), jpeg(2)], 2)
        assert cache.files == {}
    assert all("No space left on device" in outcome for outcome in outcomes)


WORKING = """
import asyncio, sys
from pathlib import Path
from model.data.pictures.picture_cache import PictureCache
from model.data.pictures.scalers import MIN_FOR_PROCESSES, Scalers

async def main():
    with PictureCache.open(Path(sys.argv[1]), 32) as cache:
        async with Scalers(cache, MIN_FOR_PROCESSES) as workers:
            await asyncio.gather(workers.store("a", b"x"), return_exceptions=True)
            print("working", flush=True)
            await asyncio.sleep(600)

asyncio.run(main())
"""


def _descendants(pid: int) -> list[int]:
    children = [
        int(child)
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]
    return [*children, *(one for child in children for one in _descendants(child))]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_workers_end_with_a_killed_run(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "working\n"
        workers = _descendants(run.pid)
        run.send_signal(signal.SIGKILL)
    assert len(workers) >= 1
    until = time.monotonic() + 60
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert [worker for worker in workers if Path(f"/proc/{worker}").exists()] == []

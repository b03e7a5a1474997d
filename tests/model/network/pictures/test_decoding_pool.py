"""Pool of decoders: threads and processes give the same pictures, in order, and errors instead of hangs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.errors import InputError, PictureError
from model.network.pictures import decoding_pool as pools
from model.network.pictures.decoding_pool import decoding_pool
from model.network.pictures.picture_decoder import PictureDecoder
from model.network.processor import Preprocessor

COUNT = 30


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        pixels = rng.integers(0, 256, (50 + number, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return [tmp_path / f"{number}.png" for number in range(COUNT)]


@pytest.fixture(params=["threads", "processes"])
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(pools, "MIN_FOR_PROCESSES", 1 if request.param == "processes" else 10**6)
    return 2


def one_by_one(decoder: PictureDecoder, paths: Sequence[Path]) -> torch.Tensor:
    room = decoder.blank(len(paths))
    for row, path in enumerate(paths):
        decoder.decode_file(path, room, row)
    return room.pixels


def test_pool_decodes_as_one_by_one_and_in_order(
    paths: list[Path], preprocessor: Preprocessor, workers: int
) -> None:
    decoder = preprocessor.decoder
    found, starts = [], []
    with decoding_pool(decoder, COUNT, workers, batch_size=4) as pool:
        for start, batch in pool.batches(paths):
            found.append(batch.pictures.pixels.clone())
            starts.append(start)
            batch.release()
    assert starts == [*range(0, COUNT, 4)]
    assert torch.equal(torch.cat(found), one_by_one(decoder, paths))


def test_unreadable_picture_is_an_error_of_its_row(
    paths: list[Path], preprocessor: Preprocessor, workers: int
) -> None:
    paths[9].write_bytes(b"no picture")
    paths[11].unlink()
    with decoding_pool(preprocessor.decoder, COUNT, workers, COUNT) as pool:
        batch = pool.read(paths)
        assert {row: str(error) for row, error in batch.errors.items()} == {
            9: "picture 9.png cannot be decoded (its format is unknown); convert it to PNG or JPEG",
            11: "picture 11.png does not exist",
        }
        assert torch.equal(batch.pictures.pixels[12:], one_by_one(preprocessor.decoder, paths[12:]))
        batch.release()
        with pytest.raises(PictureError, match=r"picture 9\.png"):
            next(pool.batches(paths))


def test_threads_decode_if_shared_memory_has_no_room(
    paths: list[Path],
    preprocessor: Preprocessor,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(pools, "MIN_FOR_PROCESSES", 1)
    monkeypatch.setattr(pools, "has_room", lambda folder, needed: False)
    monkeypatch.setattr(pools, "process_pool", None)
    with decoding_pool(preprocessor.decoder, COUNT, 2, COUNT) as pool:
        batch = pool.read(paths)
        assert torch.equal(batch.pictures.pixels, one_by_one(preprocessor.decoder, paths))
        batch.release()
    assert "Threads decode the pictures, which is slower" in "".join(capsys.readouterr())


def test_worker_that_is_killed_is_told(
    paths: list[Path], preprocessor: Preprocessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "MIN_FOR_PROCESSES", 1)
    with (
        decoding_pool(Fatal(preprocessor.image_processor), COUNT, 2, 8) as pool,
        pytest.raises(InputError, match=r"was ended, perhaps for want of memory\. Run again with fewer"),
    ):
        next(pool.batches(paths))


class Fatal(PictureDecoder):
    """Decoder that is killed, as by a system without memory."""

    def decode_file(self, path: Path, into: object, row: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


WORKING = """
import sys, time
from pathlib import Path
from model.config import SmallBackbone
from model.network.pictures.decoding_pool import MIN_FOR_PROCESSES, decoding_pool
from model.network.processor import Preprocessor

decoder = Preprocessor.train(["red mug"], SmallBackbone(image_size=32)).decoder
with decoding_pool(decoder, MIN_FOR_PROCESSES, 2) as pool:
    assert not pool.read([Path(sys.argv[1])] * 16).errors
    print("working", flush=True)
    time.sleep(600)
"""


def descendants(pid: int) -> list[int]:
    children = [
        int(child)
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]
    return [*children, *(one for child in children for one in descendants(child))]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_workers_end_with_a_killed_run(paths: list[Path]) -> None:
    command = [sys.executable, "-c", WORKING, str(paths[0])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "working\n"
        started = descendants(run.pid)
        run.send_signal(signal.SIGKILL)
    assert len(started) >= 2
    until = time.monotonic() + 60
    while any(Path(f"/proc/{worker}").exists() for worker in started) and time.monotonic() < until:
        time.sleep(0.05)
    assert [worker for worker in started if Path(f"/proc/{worker}").exists()] == []

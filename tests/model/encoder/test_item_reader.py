"""Reader of items: the vectors of the encoder, with threads, processes or a cache, and items without a picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.data.pictures.images import load_picture
from model.data.prepared_data import Prepared
from model.embeddings.encoder_protocol import PictureFolder
from model.embeddings.encoding import Encoding
from model.encoder import item_reader
from model.encoder.encoder import Encoder
from model.encoder.item_reader import choose_workers
from model.network.pictures import decoding_pool

COUNT = 7


@pytest.fixture(scope="module")
def encoder(checkpoints: dict[str, Path]) -> Encoder:
    return Encoder.from_pretrained(checkpoints["rcml"], "cpu")


@pytest.fixture(scope="module")
def data(prepared: Path) -> Prepared:
    return Prepared.open(prepared)


def read(encoder: Encoder, data: Prepared, paths: list[Path | None], cache: Path | None = None) -> Encoding:
    folder = PictureFolder(data.pictures, data.manifest.digest, COUNT, workers=2, cache=cache)
    with encoder.open_reader(folder, COUNT) as reader:
        batch = reader.read([item.text for item in data.items[:COUNT]], paths, True)
        assert batch.errors == {}
        return batch.encode()


def assert_same(one: Encoding, other: Encoding) -> None:
    for found, expected in ((one.text, other.text), (one.image, other.image)):
        np.testing.assert_array_equal(found, expected)
    assert one.tokens is not None
    assert other.tokens is not None
    np.testing.assert_array_equal(one.tokens.image.states, other.tokens.image.states)
    np.testing.assert_array_equal(one.tokens.image.starts, other.tokens.image.starts)


def test_vectors_are_those_of_the_encoder_and_bitwise_the_same_from_a_cache(
    encoder: Encoder, data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths: list[Path | None] = [*data.pictures[:COUNT]]
    paths[2] = None
    pictures = [None if path is None else load_picture(path) for path in paths]
    texts = [item.text for item in data.items[:COUNT]]
    expected = encoder.read_items(texts, pictures, tokens=True)()
    assert_same(read(encoder, data, paths), expected)
    for _ in range(2):  # the first fills the cache
        assert_same(read(encoder, data, paths, tmp_path), expected)
    monkeypatch.setattr(decoding_pool, "MIN_FOR_PROCESSES", 1)
    assert_same(read(encoder, data, paths), expected)


def test_cache_is_used_instead_of_the_files(encoder: Encoder, data: Prepared, tmp_path: Path) -> None:
    paths: list[Path | None] = [*data.pictures[:COUNT]]
    expected = read(encoder, data, paths, tmp_path)

    moved = [tmp_path / "moved" / path.name for path in data.pictures]
    moved[0].parent.mkdir()
    for path, copy in zip(data.pictures, moved, strict=True):
        copy.write_bytes(bytes(path.stat().st_size))  # unreadable, but of the same size

    folder = PictureFolder(moved, data.manifest.digest, COUNT, workers=1, cache=tmp_path)
    with encoder.open_reader(folder, COUNT) as reader:
        batch = reader.read([item.text for item in data.items[:COUNT]], [*moved[:COUNT]], True)
        assert_same(batch.encode(), expected)


def test_unreadable_pictures_are_left_out(encoder: Encoder, tmp_path: Path) -> None:
    files = [tmp_path / f"{colour}.png" for colour in ("red", "green", "blue")]
    for path in files:
        Image.new("RGB", (32, 32), path.stem).save(path)
    files[1].write_bytes(b"")
    with encoder.open_reader(PictureFolder(files, "", 4), 4) as reader:
        batch = reader.read(["a", "b", "c", "d"], [None, *files], False)
        assert {row: str(error) for row, error in batch.errors.items()} == {
            2: "picture green.png cannot be decoded (its format is unknown); convert it to PNG or JPEG"
        }
        found = batch.encode()
        expected = encoder.read_items(
            ["a", "b", "d"], [None, load_picture(files[0]), load_picture(files[2])]
        )()
        np.testing.assert_array_equal(found.image, expected.image)
        np.testing.assert_array_equal(found.text, expected.text)
        none = reader.read(["b"], [files[1]], False)
        assert list(none.errors) == [0]


def test_batch_after_batch_reuses_the_memory(encoder: Encoder, data: Prepared) -> None:
    texts = [item.text for item in data.items[:2]]
    with encoder.open_reader(PictureFolder(data.pictures, "", 2), 2) as reader:
        vectors = [
            reader.read(texts, [*data.pictures[batch % 3 : batch % 3 + 2]], False).encode().image
            for batch in range(2 * reader.depth)
        ]
    assert len(vectors) == 2 * reader.depth
    for batch in range(3, 2 * reader.depth):
        np.testing.assert_array_equal(vectors[batch], vectors[batch % 3])
    np.testing.assert_array_equal(vectors[1][0], vectors[0][1])


def test_towers_on_cuda_leave_cores_to_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_reader, "available_cores", lambda: 16)
    assert [choose_workers(True, sharers) for sharers in (1, 4, 8, 32)] == [15, 3, 1, 1]
    assert [choose_workers(False, sharers) for sharers in (1, 8, 16)] == [2, 2, 1]

"""Embedding of all items: skipped items, interrupted builds, and several processes."""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from PIL import Image

from indexes.builder.build import build
from indexes.builder.embed import ProcessGroup, SingleProcess
from indexes.builder.shards import SHARDS_DIR
from indexes.config import BuildConfig
from indexes.index import Index
from indexes.storage.layout import newest_generation
from indexes.storage.tokens import TokenStore
from model.artifact import open_artifact
from model.checkpoint.checkpoint import Checkpoint
from model.data.prepared_data import Prepared
from model.embeddings.encoding import Encoding
from model.errors import InputError
from model.similarity import Similarity
from model.worker_pools import ahead
from tests.indexes.fakes import ITEMS, FakeEncoder, FakeShop


class CountingEncoder(FakeEncoder):
    """Encoder that counts the encoded items, and interrupts the build before it would encode more than `most`."""

    def __init__(self, most: int = 1_000) -> None:
        self.encoded = 0
        self._most = most

    def read_items(
        self, texts: Sequence[str], pictures: Sequence[Image.Image | None], tokens: bool = False
    ) -> Callable[[], Encoding]:
        encode = super().read_items(texts, pictures, tokens)

        def counted() -> Encoding:
            if self.encoded + len(texts) > self._most:
                raise KeyboardInterrupt
            self.encoded += len(texts)
            return encode()

        return counted


@pytest.fixture(autouse=True)
def _short_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexes.builder.shards.ITEMS_PER_SHARD", 4)


def run(
    shop: FakeShop,
    out: Path,
    encoder: FakeEncoder | None = None,
    group: ProcessGroup | None = None,
    prepared: Path | None = None,
    **options: Any,
) -> Path:
    encode(shop, out, encoder, group, prepared, **options)
    return newest_generation(out)


def encode(
    shop: FakeShop,
    out: Path,
    encoder: FakeEncoder | None = None,
    group: ProcessGroup | None = None,
    prepared: Path | None = None,
    **options: Any,
) -> None:
    config = BuildConfig(
        checkpoint=shop.checkpoint, prepared=prepared or shop.prepared, out=out, batch_size=3, **options
    )
    data = Prepared.open(config.prepared)
    build(config, encoder or FakeEncoder(), Checkpoint.open(shop.checkpoint), data, group or SingleProcess())


def test_skips_item_with_unreadable_picture_and_records_reason(shop: FakeShop, tmp_path: Path) -> None:
    prepared = Path(shutil.copytree(shop.prepared, tmp_path / "prepared"))
    for row in (0, 4, 5):
        path = prepared / ITEMS[row].picture
        path.write_bytes(bytes(path.stat().st_size))
    generation = run(shop, tmp_path / "index", prepared=prepared)
    reasons = json.loads((generation / "set-aside.json").read_text())
    assert list(reasons) == ["red-mug", "twin-3", "a/b?c#d e"]
    assert reasons["red-mug"] == "picture 00000.png is missing, or was changed after `rcml prepare` wrote it"
    assert open_artifact(generation, "index").counts["set_aside"] == 3
    index = Index.open(tmp_path / "index", shop.checkpoint)
    left = [item.item_id for _, item in index.snapshot.page(0, 100)]
    assert left == [item.item_id for row, item in enumerate(ITEMS) if row not in (0, 4, 5)]
    hits = index.reader().neighbours("twin-1", "gardeners", Similarity.TT, 3)
    assert hits[0].item.item_id == "twin-2"
    assert hits[0].score == pytest.approx(1, abs=1e-3)
    index.close()


def test_skips_item_whose_picture_is_that_of_another_item(shop: FakeShop, tmp_path: Path) -> None:
    prepared = Path(shutil.copytree(shop.prepared, tmp_path / "prepared"))
    first, second = (prepared / ITEMS[row].picture for row in (0, 1))
    assert first.stat().st_size == second.stat().st_size, "opening the data would already find another size"
    shutil.copyfile(second, first)
    generation = run(shop, tmp_path / "index", prepared=prepared)
    assert list(json.loads((generation / "set-aside.json").read_text())) == ["red-mug"]


def test_rejects_data_without_readable_pictures(shop: FakeShop, tmp_path: Path) -> None:
    prepared = Path(shutil.copytree(shop.prepared, tmp_path / "prepared"))
    for item in ITEMS:
        path = prepared / item.picture
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(
        InputError, match=r"No item of .* could be encoded: picture 00000.png is missing, or was changed"
    ):
        run(shop, tmp_path / "index", prepared=prepared)


def test_resumes_interrupted_build(
    shop: FakeShop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = CountingEncoder(most=9), CountingEncoder()
    with pytest.raises(KeyboardInterrupt):
        run(shop, tmp_path / "index", first)
    assert [path.name for path in (tmp_path / "index").iterdir()] == [SHARDS_DIR]
    generation = run(shop, tmp_path / "index", second)
    assert "Resuming: an earlier run encoded 8 of 12 items." in capsys.readouterr().err
    assert second.encoded == len(ITEMS) - 8
    undisturbed = run(shop, tmp_path / "other")
    for path in (undisturbed / "vectors").iterdir():
        assert (generation / "vectors" / path.name).read_bytes() == path.read_bytes()
    assert not (tmp_path / "index" / SHARDS_DIR).exists()


@pytest.mark.parametrize("damage", ["torn", "partial"])
def test_encodes_incomplete_shard_again(damage: str, shop: FakeShop, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(shop, tmp_path / "index", CountingEncoder(most=9))
    shard = min((tmp_path / "index" / SHARDS_DIR).glob("00001-*"))
    if damage == "torn":
        shard.write_bytes(shard.read_bytes()[:-100] + bytes(100))
    else:
        shard.rename(shard.with_name("00001.partial"))
    encoder = CountingEncoder()
    generation = run(shop, tmp_path / "index", encoder)
    assert encoder.encoded == len(ITEMS) - 4
    assert (generation / "vectors/000.text.faiss").read_bytes() == (
        shop.generation / "vectors/000.text.faiss"
    ).read_bytes()


@pytest.mark.parametrize(
    ("towers", "encoded"), [("bf16 by torch: a reason", 12), ("fp32 by torch: a reason", 4)]
)
def test_reuses_shards_only_of_towers_with_the_same_precision_and_runtime(
    towers: str, encoded: int, shop: FakeShop, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(shop, tmp_path / "index", CountingEncoder(most=9))
    encoder = CountingEncoder()
    encoder.towers = towers
    run(shop, tmp_path / "index", encoder)
    assert encoder.encoded == encoded


def test_does_not_reuse_shards_encoded_with_other_options(
    shop: FakeShop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(shop, tmp_path / "index", CountingEncoder(most=9))
    encoder = CountingEncoder()
    run(shop, tmp_path / "index", encoder, token_store=True)
    assert (
        "An earlier run used other data or options. Its encoded items were removed."
        in capsys.readouterr().err
    )
    assert encoder.encoded == len(ITEMS)


def test_reuses_encoded_items_after_index_kind_was_rejected(
    shop: FakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise InputError("kind hnsw reaches a recall of 0.5 at most")

    with monkeypatch.context() as patched:
        patched.setattr("indexes.builder.build.keep_vectors", refuse)
        with pytest.raises(InputError, match="reaches"):
            run(shop, tmp_path / "index", kind="hnsw")
    encoder = CountingEncoder(most=0)
    assert run(shop, tmp_path / "index", encoder, kind="flat").is_dir()
    assert encoder.encoded == 0


def test_says_which_side_took_the_time(
    shop: FakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("indexes.builder.embed.PROGRESS_INTERVAL_S", 0.0)
    run(shop, tmp_path / "index")
    lines = [line for line in capsys.readouterr().err.splitlines() if " items/s" in line]
    shares = r"time: data (\d+)%, device (\d+)%, writer (\d+)%$"
    assert re.match(r"3 of 12 items embedded, [\d,.]+ items/s, \d+ minutes left; " + shares, lines[0])
    closing = re.match(r"12 items embedded, [\d,.]+ items/s; " + shares, lines[-1])
    assert closing is not None
    assert sum(int(share) for share in closing.groups()) == pytest.approx(100, abs=2)


@dataclass
class Pair:
    """Process group of two threads."""

    rank: int
    barrier: Barrier
    size: int = 2

    def wait(self) -> None:
        self.barrier.wait(600)


def test_two_ranks_build_same_index_as_one_process(shop: FakeShop, tmp_path: Path) -> None:
    barrier = Barrier(2)
    encoders = [CountingEncoder(), CountingEncoder()]
    (tmp_path / "shared").mkdir()
    with ThreadPoolExecutor(2) as pool:
        ranks = [
            pool.submit(encode, shop, tmp_path / "shared", encoders[rank], Pair(rank, barrier))
            for rank in (0, 1)
        ]
        for rank in ranks:
            rank.result()
    generation = newest_generation(tmp_path / "shared")
    assert [encoder.encoded for encoder in encoders] == [8, 4]
    for path in (shop.generation / "vectors").iterdir():
        assert (generation / "vectors" / path.name).read_bytes() == path.read_bytes()


def test_stores_encoder_tokens_in_catalogue_order(shop: FakeShop, tmp_path: Path) -> None:
    assert not (run(shop, tmp_path / "without") / "tokens").exists()
    store = TokenStore(run(shop, tmp_path / "index", token_store=True) / "tokens")
    tokens = store.tokens
    pictures = [Image.open(shop.prepared / item.picture).convert("RGB") for item in ITEMS]
    expected = FakeEncoder().read_items([item.text for item in ITEMS], pictures, tokens=True)().tokens
    assert expected is not None
    for stored, made in ((tokens.text, expected.text), (tokens.image, expected.image)):
        np.testing.assert_array_equal(stored.states, made.states)
        np.testing.assert_array_equal(stored.starts, made.starts)
    assert isinstance(tokens.image.states.base, np.memmap)


def test_ahead_computes_limited_number_of_results_in_advance() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        return number * number

    with ThreadPoolExecutor(1) as pool:
        for number, square in ahead(pool, work, range(20), depth=3):
            assert square == number * number
            assert max(begun) < number + 4
    assert begun == [*range(20)]


def test_ahead_raises_error_in_place_of_failed_result() -> None:
    with ThreadPoolExecutor(2) as pool:
        made = ahead(pool, lambda number: 1 // number, [2, 1, 0, 3], depth=2)
        assert [next(made), next(made)] == [(2, 0), (1, 1)]
        with pytest.raises(ZeroDivisionError):
            next(made)

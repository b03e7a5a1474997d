"""Needs that `rcml index build` states beforehand, compared with what builds take, and refusals of what cannot fit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from indexes.builder.auto_options import choose_kind, precomputed_similarities
from indexes.builder.build import build
from indexes.builder.build_needs import BuildNeeds, build_needs, low_rank_bytes, readable_time
from indexes.builder.machine import readable_size
from indexes.builder.shards import SHARDS_DIR
from indexes.config import BuildConfig, IndexKind
from indexes.storage.layout import newest_generation
from indexes.vectors.faiss_backend import resident_bytes
from model.checkpoint.checkpoint import Checkpoint
from model.data.prepared_data import Prepared
from model.embeddings.encoding import Encoding
from model.errors import InputError
from tests.indexes.fakes import DIM, ITEMS, RELATIONS, FakeEncoder, FakeShop

GIB = 2**30


class NeverEncodes(FakeEncoder):
    """Encoder that must not be used."""

    def read_items(self, *inputs: object) -> Callable[[], Encoding]:
        raise AssertionError("the build was not refused")


def config(shop: FakeShop, out: Path, **options: object) -> BuildConfig:
    return BuildConfig.model_validate(
        {"checkpoint": shop.checkpoint, "prepared": shop.prepared, "out": out, **options}
    )


def needs(shop: FakeShop, options: BuildConfig) -> BuildNeeds:
    """Return the needs of a build of the shop."""
    kind = choose_kind(options, len(ITEMS), len(RELATIONS), DIM)
    answers = precomputed_similarities(options, kind, len(ITEMS), True)
    checkpoint, prepared = Checkpoint.open(shop.checkpoint), Prepared.open(shop.prepared)
    return build_needs(options, kind, checkpoint, prepared, len(RELATIONS), DIM, len(answers))


@pytest.mark.parametrize("options", [{}, {"token_store": True, "answers": "all"}])
def test_stated_disk_space_is_enough_for_the_generation(
    shop: FakeShop, tmp_path: Path, options: dict[str, object]
) -> None:
    asked = config(shop, tmp_path / "index", **options)
    build(asked, FakeEncoder(), Checkpoint.open(shop.checkpoint), Prepared.open(shop.prepared))
    files = [path for path in newest_generation(asked.out).rglob("*") if path.is_file()]
    vectors = sum(path.stat().st_size for path in files if path.suffix == ".faiss")
    # Each file has a header, and each table of SQLite at least one page, whatever the number of items.
    fixed = 100 * len([path for path in files if path.suffix == ".faiss"]) + 40_000
    assert sum(path.stat().st_size for path in files) <= needs(shop, asked).disk + fixed
    assert vectors >= 2 * DIM * 3 * len(RELATIONS) * len(ITEMS)


@pytest.mark.parametrize("kind", ["flat", "ivf-rabitq"])
def test_memory_to_serve_counts_every_relation_and_view(shop: FakeShop, tmp_path: Path, kind: str) -> None:
    found = needs(shop, config(shop, tmp_path / "index", kind=kind))
    assert found.serving == len(ITEMS) * len(RELATIONS) * 3 * resident_bytes(found.kind, DIM, len(ITEMS))


def test_memory_for_free_text_relations_is_stated(shop: FakeShop, tmp_path: Path) -> None:
    shape = len(ITEMS), len(RELATIONS), DIM
    without = config(shop, tmp_path / "index")
    assert needs(shop, without).free_text == 0
    assert "Free-text" not in "".join(needs(shop, without).describe(without, *shape))
    asked = config(shop, tmp_path / "index", token_store=True)
    found = needs(shop, asked)
    # Each token has 16 components and a length of four bytes.
    assert found.free_text == 20 * (20 + 50) * len(ITEMS)
    assert [low_rank_bytes(dim) for dim in (16, 64, 512)] == [20, 68, 68]
    assert found.describe(asked, *shape)[-1] == (
        f"Free-text relations need up to {readable_size(found.free_text)} more to serve, which all processes share, "
        "and up to 512.0 MiB in each process (`rcml serve --free-text-memory`)."
    )


def test_refuses_a_full_disk_before_it_encodes(
    shop: FakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.builder.build_needs.free_space", lambda folder: 1_000)
    with pytest.raises(
        InputError, match=r"Building needs .* KiB on the disk of .*index, which has 1000 bytes free\. Free"
    ):
        refused(shop, tmp_path)


def test_items_that_an_interrupted_build_encoded_need_no_further_space(
    shop: FakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config(shop, tmp_path / "index")
    disk = needs(shop, asked).disk
    monkeypatch.setattr("indexes.builder.build_needs.free_space", lambda folder: disk - 1_000)
    with pytest.raises(InputError, match="on the disk"):
        build(asked, FakeEncoder(), Checkpoint.open(shop.checkpoint), Prepared.open(shop.prepared))
    encoded = asked.out / SHARDS_DIR
    encoded.mkdir(parents=True)
    (encoded / "00000-0123456789abcdef.safetensors").write_bytes(bytes(1_000))
    build(asked, FakeEncoder(), Checkpoint.open(shop.checkpoint), Prepared.open(shop.prepared))


@pytest.mark.parametrize(
    ("kind", "vectors", "items", "answered"),
    [
        ("flat", None, 100_000, True),
        ("flat", None, 100_001, False),  # hours for each relation
        ("hnsw", None, 1_000_000, True),
        ("ivf-rabitq", None, 1_000_001, False),
        ("ivf-flat", "http://127.0.0.1:19530", 100_001, False),
    ],
)
def test_auto_answers_only_what_is_quickly_found(
    kind: IndexKind, vectors: str | None, items: int, answered: bool, shop: FakeShop, tmp_path: Path
) -> None:
    options = config(shop, tmp_path / "index", vectors=vectors)
    assert bool(precomputed_similarities(options, kind, items, True)) is answered


@pytest.mark.parametrize(("pictures", "tokens"), [(True, 70), (False, 20)])
def test_only_items_with_a_picture_need_space_for_its_tokens(
    pictures: bool, tokens: int, shop: FakeShop, tmp_path: Path
) -> None:
    prepared = Prepared.open(shop.prepared)
    if not pictures:
        prepared = replace(prepared, items=tuple(replace(item, picture="") for item in prepared.items))

    def disk(token_store: bool) -> int:
        options = config(shop, tmp_path / "index", token_store=token_store)
        checkpoint = Checkpoint.open(shop.checkpoint)
        return build_needs(options, "flat", checkpoint, prepared, len(RELATIONS), DIM, 1).disk

    # The encoded items and the generation both contain the tokens, in half precision. The generation has projections.
    assert disk(True) - disk(False) == len(ITEMS) * tokens * (2 * 2 * DIM + low_rank_bytes(DIM))


def test_refuses_more_memory_than_the_machine_has_to_build(
    shop: FakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.builder.build_needs.machine_memory", lambda: GIB // 2)
    with pytest.raises(
        InputError, match=r"Building needs 64\d\.\d MiB of memory, but this machine has 512\.0 MiB"
    ):
        refused(shop, tmp_path)


def test_small_network_is_built_in_a_small_container(
    shop: FakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.builder.build_needs.machine_memory", lambda: GIB)
    asked = config(shop, tmp_path / "index")
    weights = sum(record.size for record in Checkpoint.open(shop.checkpoint).manifest.files.values())
    assert needs(shop, asked).building == 640 * 2**20 + 2 * weights + len(ITEMS) * 4 * DIM
    build(asked, FakeEncoder(), Checkpoint.open(shop.checkpoint), Prepared.open(shop.prepared))


def test_refuses_an_index_that_this_machine_could_not_serve(
    shop: FakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.builder.auto_options.machine_memory", lambda: 4_000)
    with pytest.raises(
        InputError, match=r"exceeds three quarters of this machine's memory \(2\.9 KiB of 3\.9 KiB\)\. Pass"
    ):
        refused(shop, tmp_path, kind="flat")
    # A larger machine will serve it.
    asked = config(shop, tmp_path / "index", kind="flat", max_memory="1GiB")
    build(asked, FakeEncoder(), Checkpoint.open(shop.checkpoint), Prepared.open(shop.prepared))


@pytest.mark.parametrize("memory", [4_000, 2**50])
def test_compaction_on_another_machine_keeps_the_kind(
    memory: int, shop: FakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine with little memory would choose codes, one with much memory vectors."""
    monkeypatch.setattr("indexes.builder.auto_options.machine_memory", lambda: memory)
    options = config(shop, tmp_path / "index")
    kinds: tuple[IndexKind, ...] = ("flat", "hnsw", "ivf-rabitq")
    assert [choose_kind(options, 60_000, 40, 512, kind) for kind in kinds] == [*kinds]
    grown = "hnsw" if memory > 4_000 else "ivf-rabitq"
    assert choose_kind(options, 100_001, 40, 512, "flat") == grown
    limited = config(shop, tmp_path / "index", max_memory="1GiB")
    assert choose_kind(limited, 60_000, 40, 512, "flat") == "ivf-rabitq"


def refused(shop: FakeShop, folder: Path, **options: object) -> None:
    """Build the shop, and check that a refused build leaves nothing behind."""
    asked = config(shop, folder / "index", **options)
    try:
        build(asked, NeverEncodes(), Checkpoint.open(shop.checkpoint), Prepared.open(shop.prepared))
    finally:
        assert list(folder.iterdir()) == []


def test_says_why_auto_chose_the_kind_and_what_the_build_needs(
    shop: FakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.builder.auto_options.machine_memory", lambda: 16 * GIB)
    options = config(shop, tmp_path / "index")
    kind = choose_kind(options, 1_000_000, 10, 512)
    found = BuildNeeds(kind, 3 * GIB, 4 * GIB, 70 * GIB, 6_450.0)
    assert found.describe(options, 1_000_000, 10, 512) == [
        "Kind ivf-rabitq: the vectors may take 12.0 GiB of memory when served (three quarters of this machine's), and "
        "would need hnsw 38.2 GiB, ivf-rabitq 4.9 GiB.",
        "1,000,000 items under 10 relations need 3.0 GiB of memory for vectors to serve; 4.0 GiB of memory and "
        "70.0 GiB of disk to build; and about 108 minutes to index the vectors once the items are embedded.",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "1 s"), (119, "119 s"), (120, "2 minutes"), (7_199, "120 minutes"), (9_000, "2.5 hours")],
)
def test_time_is_readable(seconds: float, text: str) -> None:
    assert readable_time(seconds) == text

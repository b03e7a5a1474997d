"""Data preparation: kept and skipped items, derived and ready-made edges, splits, and scaled pictures."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.rig.picture_server import picture_server
from model.config import TrainConfig
from model.data.pictures.stored_pictures import scale_picture
from model.data.prepare import prepare
from model.data.prepare_config import PrepareConfig
from model.data.prepared_data import Prepared
from model.errors import InputError
from model.page.markdown_text import escaped
from model.records import INTRA_RELATION, Edge, Split
from model.training.train import train
from tests.model.planted import prepared_of, two_camps, write_log, write_pictured_items, write_rows


@pytest.fixture(scope="module")
def camps(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepared_of(two_camps(tmp_path_factory.mktemp("camps")))


def report_of(prepared: Prepared) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((prepared.path / "report.json").read_text())
    return report


def edges_config(
    folder: Path, edges: Sequence[tuple[str, str, str]], texts: dict[str, str] | None = None, **options: Any
) -> PrepareConfig:
    """Return options with ready-made edges between the items a to f, all of them in training by default."""
    chosen = {"validation_share": 0.0, "test_share": 0.0, **options}
    texts = texts or {"worn": "Worn together.", "read": "Read together."}
    return PrepareConfig(
        items=write_pictured_items(folder, {name: ["Things"] for name in "abcdef"}),
        edges=write_rows(
            folder / "edges.jsonl", ({"item_a": a, "item_b": b, "relation": r} for a, b, r in edges)
        ),
        relation_texts=write_rows(
            folder / "texts.jsonl", ({"relation": r, "description": text} for r, text in texts.items())
        ),
        out=folder / "prepared",
        **chosen,
    )


# From a log.


def test_each_user_group_becomes_a_relation_named_after_its_categories(camps: Prepared) -> None:
    assert camps.relations[0] == INTRA_RELATION
    assert {relation.relation_id: relation.description for relation in camps.relations[1:]} == {
        "books": "Co-purchased by people who overwhelmingly buy Books, while showing minimal engagement in Pans.",
        "pans": "Co-purchased by people who overwhelmingly buy Pans, while showing minimal engagement in Books.",
    }
    assert [relation.name for relation in camps.relations] == ["", "Books", "Pans"]


def test_edges_of_a_relation_connect_only_items_of_its_user_group(camps: Prepared) -> None:
    sides = {(edge.relation_id, edge.item_a[0], edge.item_b[0]) for edge in camps.edges}
    assert sides == {("books", "b", "b"), ("pans", "p", "p")}


def test_support_counts_users_who_had_both_items(camps: Prepared, tmp_path: Path) -> None:
    log = [json.loads(row) for row in two_camps(tmp_path).interactions[0].read_text().splitlines()]
    users: dict[str, set[str]] = {}
    for row in log:
        users.setdefault(row["item_id"], set()).add(row["user_id"])
    assert {edge.support for edge in camps.edges} > {6}
    assert all(edge.support == len(users[edge.item_a] & users[edge.item_b]) for edge in camps.edges)


def test_splits_have_the_requested_shares(camps: Prepared) -> None:
    assert [camps.splits.count(split) for split in Split] == [24 - 2 - 6, 2, 6]


def test_report_counts_items_users_and_pairs(camps: Prepared) -> None:
    report = report_of(camps)
    assert report["items"] == {"kept": 24, "text_only": 0, "train": 16, "validation": 2, "test": 6}
    assert report["log"]["kept_users"] == 40
    assert report["log"]["kept_interactions"] == 320
    assert report["pairs"] == report["pairs_of_one_relation"] == len(camps.edges)
    assert [row["users"] for row in report["relations"]] == [20, 20]
    for row in report["relations"]:
        own = [edge for edge in camps.edges if edge.relation_id == row["relation"]]
        assert row["items"] == len({item for edge in own for item in (edge.item_a, edge.item_b)})
        assert row["pairs"] == {split.value: sum(edge.split == split for edge in own) for split in Split}


def test_report_json_keeps_its_layout(camps: Prepared) -> None:
    text = (camps.path / "report.json").read_text()
    content = json.loads(text)
    assert text == json.dumps(content, indent=2) + "\n"
    assert list(content) == [
        "items", "log", "pairs", "pairs_of_one_relation", "edges_across_kept", "edges_across_dropped", "relations",
        "set_aside", "files", "columns", "advice", "changes", "pairs_across", "trained_items", "filters",
        "distributions", "skipped_items", "verdict",
    ]  # fmt: skip
    assert list(content["items"]) == ["kept", "text_only", "train", "validation", "test"]
    assert list(content["log"]) == [
        "interactions", "of_unknown_items", "without_repeats", "of_latest_items", "kept_interactions",
        "kept_users", "kept_items", "edges_across_splits",
    ]  # fmt: skip
    for row in content["relations"]:
        assert list(row) == ["relation", "description", "users", "items", "pairs", "categories", "samples"]


def test_summary_and_markdown_report_match_the_data(tmp_path: Path) -> None:
    config = two_camps(tmp_path)
    summary = prepare(config)
    prepared = Prepared.open(config.out)
    assert summary.startswith(
        f"Prepared 24 items, 2 relations and {len(prepared.edges)} edges in {config.out}"
    )
    assert f"see {config.out / 'report.html'}" in summary
    readable = (config.out / "report.md").read_text()
    assert "24 items: 16 for training, 2 for early stopping, 6 for evaluation." in readable
    assert "| `books` | 20 |" in readable


def test_same_seed_gives_the_same_artifact_and_another_seed_another_split(tmp_path: Path) -> None:
    config = two_camps(tmp_path)
    first, again = prepared_of(config), prepared_of(config)
    other = prepared_of(config.model_copy(update={"seed": 1}))
    assert first.manifest.digest == again.manifest.digest
    assert first.splits != other.splits


def taken_config(folder: Path, taken: dict[str, str], **options: Any) -> PrepareConfig:
    """Return options with a log of items named by letters, each in its own category, and lenient filters."""
    letters = sorted({item for items in taken.values() for item in items})
    chosen = {"clusters": 2, "min_user_items": 2, "min_item_users": 1, **options}
    return PrepareConfig(
        items=write_pictured_items(folder, {letter: [f"Category {letter}"] for letter in letters}),
        interactions=write_log(folder / "log.jsonl", taken),
        out=folder / "prepared",
        **chosen,
    )


def test_repeats_the_filters_until_nothing_more_is_dropped(tmp_path: Path) -> None:
    # d has one user. Without d, u4 has one item. Without u4, c has one user. Without c, u3 has one item.
    taken = {"u1": "abe", "u2": "ab", "u5": "ae", "u3": "bc", "u4": "cd"}
    log = report_of(prepared_of(taken_config(tmp_path, taken, min_item_users=2)))["log"]
    assert (log["interactions"], log["kept_interactions"]) == (11, 7)
    assert (log["kept_users"], log["kept_items"]) == (3, 3)


def test_counts_repeated_interactions_once(tmp_path: Path) -> None:
    log = report_of(prepared_of(taken_config(tmp_path, {"u": "aabba", "v": "bccc"})))["log"]
    assert (log["interactions"], log["kept_interactions"]) == (9, 4)


def test_ignores_low_ratings(tmp_path: Path) -> None:
    config = taken_config(tmp_path, {"u": "abc"}, min_rating=4.0)
    rows = [("u", "a", 5), ("u", "b", 4), ("u", "c", 3.9), ("v", "b", 4.5), ("v", "c", 5), ("v", "a", None)]
    write_rows(
        tmp_path / "log.jsonl", ({"user_id": u, "item_id": i, "rating": rating} for u, i, rating in rows)
    )
    assert report_of(prepared_of(config))["log"]["kept_interactions"] == 4


def test_keeps_the_latest_items_of_users_with_many_items(tmp_path: Path) -> None:
    config = taken_config(
        tmp_path, {"u": "abcd", "v": "abcd"}, max_user_items=2, min_support=1, min_npmi=-1.0, test_share=0.0,
        validation_share=0.0,
    )  # fmt: skip
    times = {"u": "dbca", "v": "cadb"}  # oldest first: u keeps c and a, v keeps d and b
    write_rows(
        tmp_path / "log.jsonl",
        (
            {"user_id": user, "item_id": item, "timestamp": order.index(item)}
            for user, order in times.items()
            for item in "abcd"
        ),
    )
    edges = prepared_of(config).edges
    assert {(edge.item_a, edge.item_b) for edge in edges} == {("a", "c"), ("b", "d")}


def test_ignores_interactions_with_unknown_items(tmp_path: Path) -> None:
    config = taken_config(tmp_path, {"u": "abc", "v": "bcd"})
    write_log(tmp_path / "log.jsonl", {"u": ["a", "b", "ghost"], "v": ["b", "c", "d"]})
    log = report_of(prepared_of(config))["log"]
    assert (log["interactions"], log["kept_interactions"]) == (6, 5)


def test_rejects_fewer_users_than_clusters_and_states_both_numbers(tmp_path: Path) -> None:
    config = taken_config(tmp_path, {"u": "abc", "v": "abc", "w": "a"}, clusters=5)
    with pytest.raises(
        InputError, match=r"log\.jsonl has 2 users left .* at least one for each of the 5 clusters"
    ):
        prepare(config)


def test_rejects_a_log_if_no_item_has_categories(tmp_path: Path) -> None:
    config = taken_config(tmp_path, {"u": "abc", "v": "abd"})
    write_pictured_items(tmp_path, {letter: [] for letter in "abcd"})
    with pytest.raises(
        InputError, match="no item has categories, but the descriptions of relations are derived from them"
    ):
        prepare(config)


def test_items_without_categories_get_the_category_other_things(tmp_path: Path) -> None:
    config = taken_config(tmp_path, {"u": "ab", "v": "cd"})
    write_pictured_items(tmp_path, {"a": ["Books"], "b": ["Books"], "c": [], "d": []})
    names = {relation.relation_id for relation in prepared_of(config).relations if not relation.intra}
    assert names == {"books", "other-things"}


def test_a_category_of_all_items_is_in_no_description(tmp_path: Path) -> None:
    config = taken_config(tmp_path, {"u": "ab", "v": "cd"})
    write_pictured_items(
        tmp_path,
        {"a": ["Shop", "Books"], "b": ["Shop", "Books"], "c": ["Shop", "Mugs"], "d": ["Shop", "Mugs"]},
    )
    prepared = prepared_of(config)
    described = [relation.description for relation in prepared.relations if not relation.intra]
    assert sorted(described) == [
        "Co-purchased by people who overwhelmingly buy Books, while showing minimal engagement in Mugs.",
        "Co-purchased by people who overwhelmingly buy Mugs, while showing minimal engagement in Books.",
    ]
    assert report_of(prepared)["advice"] == [
        "Every item has the category 'Shop', so it distinguishes no users and is in no description."
    ]


def test_fewer_clusters_than_asked_for_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = taken_config(tmp_path, {"u": "ab", "v": "bc", "w": "ab"}, clusters=3)
    write_pictured_items(tmp_path, {letter: ["All"] for letter in "abc"})
    prepared = prepared_of(config)
    sentence = (
        "3 clusters were asked for, but the users do not differ by the categories of their items, so there is 1. Add "
        "categories to the items."
    )
    assert report_of(prepared)["advice"] == [sentence]
    assert f"Note: {sentence}" in capsys.readouterr().err


def test_ids_that_do_not_join_are_told_and_can_be_repaired(tmp_path: Path) -> None:
    config = taken_config(tmp_path, {"u": "abc", "v": "bcd"})
    write_log(tmp_path / "log.jsonl", {"u": ["a ", "B", "c", "d"], "v": ["b", "c", "d", "ghost"]})
    report = report_of(prepared_of(config))
    assert report["log"]["of_unknown_items"] == 3
    assert report["advice"] == [
        "3 interactions name no item, such as 'a '. Of these, 1 differ only in blanks at the ends ('a ' for 'a'); 1 "
        "differ only in upper and lower case ('B' for 'b'). --repair-ids joins them."
    ]
    repaired = report_of(prepared_of(config.model_copy(update={"repair_ids": True})))
    assert (repaired["log"]["of_unknown_items"], repaired["log"]["kept_interactions"]) == (1, 7)


def test_a_log_whose_ids_do_not_join_is_not_told_to_relax_the_filters(tmp_path: Path) -> None:
    config = taken_config(tmp_path, {"u": "abc", "v": "bcd"})
    write_log(tmp_path / "log.jsonl", {"u": ["a.0"], "v": ["x1", "x2"]})
    with pytest.raises(
        InputError, match=r"3 interactions name no item, such as 'a\.0'.* in the log and in the items"
    ):
        prepare(config)


def test_a_log_can_be_judged_before_its_pictures_are_there(tmp_path: Path) -> None:
    config = two_camps(tmp_path)
    pictured = prepared_of(config)
    rows = [json.loads(row) for row in (tmp_path / "items.jsonl").read_text().splitlines()]
    write_rows(tmp_path / "items.jsonl", ({**row, "image": ""} for row in rows))
    prepared = prepared_of(config)
    assert prepared.edges == pictured.edges
    said = "No item has a picture, so the relations and pairs can be judged, but nothing can be"
    assert sum(sentence.startswith(said) for sentence in report_of(prepared)["advice"]) == 1
    with pytest.raises(InputError, match="has no item with a picture, which training and evaluation need"):
        train(TrainConfig(prepared=config.out, out=tmp_path / "checkpoint"))


# From ready-made edges.


def test_uses_ready_made_edges_and_texts_unchanged(tmp_path: Path) -> None:
    prepared = prepared_of(edges_config(tmp_path, [("b", "a", "worn"), ("a", "b", "read")]))
    assert prepared.edges == (
        Edge("a", "b", "worn", 1, 1.0, Split.TRAIN),
        Edge("a", "b", "read", 1, 1.0, Split.TRAIN),
    )
    assert [(r.relation_id, r.description) for r in prepared.relations[1:]] == [
        ("worn", "Worn together."),
        ("read", "Read together."),
    ]
    assert prepared.partners() == {"a": {"b"}, "b": {"a"}}


def test_every_relation_between_different_items_has_the_requested_domain(tmp_path: Path) -> None:
    prepared = prepared_of(edges_config(tmp_path, [("a", "b", "worn")], domain="Clothing"))
    assert [relation.domain for relation in prepared.relations] == ["", "Clothing", "Clothing"]


def test_counts_unusable_edges(tmp_path: Path) -> None:
    edges = [("a", "b", "worn"), ("b", "a", "worn"), ("a", "a", "worn"), ("a", "ghost", "worn")]
    prepared = prepared_of(edges_config(tmp_path, edges))
    assert [(edge.item_a, edge.item_b) for edge in prepared.edges] == [("a", "b")]
    assert report_of(prepared)["log"] == {"self_edges": 1, "edges_of_unknown_items": 1}


def test_edges_that_join_no_items_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"^None of the 2 edges joins two of the items, such as '1' and '2'\. .* make them equal",
    ):
        prepare(edges_config(tmp_path, [("1", "2", "worn"), ("a", "1", "worn"), ("1", "1", "worn")]))


def test_rejects_an_edge_of_a_relation_without_description(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"edges\.jsonl: relation 'sold' has no description in .*texts\.jsonl"
    ):
        prepare(edges_config(tmp_path, [("a", "b", "sold")]))


# Items and pictures.


def test_joins_the_requested_text_fields_in_their_order(tmp_path: Path) -> None:
    config = edges_config(tmp_path, [("a", "b", "worn")], text_fields=("categories", "title"))
    assert prepared_of(config).items[0].text == "Things.\nThing a"


def spoil(folder: Path, item_id: str, /, image: str | None = None, **changes: Any) -> None:
    rows = [json.loads(row) for row in (folder / "items.jsonl").read_text().splitlines()]
    write_rows(
        folder / "items.jsonl",
        (
            {**row, **({"image": image} if image is not None else {}), **changes}
            if row["item_id"] == item_id
            else row
            for row in rows
        ),
    )


def damaged(folder: Path) -> None:
    (folder / "a.png").write_bytes(b"not a picture")


def truncated(folder: Path) -> None:
    Image.effect_noise((64, 64), 99).save(folder / "a.png")
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:600])


def enormous(folder: Path) -> None:
    Image.new("1", (8_100, 8_000)).save(folder / "a.png")


def larger_still(folder: Path) -> None:
    Image.new("1", (10_000, 9_000)).save(folder / "a.png")  # above Pillow's own warning limit


def missing(folder: Path) -> None:
    (folder / "a.png").unlink()


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (damaged, "picture a.png cannot be decoded"),
        (truncated, "picture a.png cannot be decoded"),
        (enormous, "picture a.png cannot be decoded (it has 8100 x 8000 pixels; at most 64,000,000"),
        (larger_still, "picture a.png cannot be decoded (it has 10000 x 9000 pixels; at most 64,000,000"),
        (missing, "picture a.png does not exist"),
        (lambda folder: spoil(folder, "a", image="../"), "picture "),
        (
            lambda folder: spoil(folder, "a", title=" ", categories=[]),
            "no text in title, categories, description",
        ),
    ],
)
def test_skips_an_unusable_item_with_the_reason(harm: Any, reason: str, tmp_path: Path) -> None:
    config = edges_config(tmp_path, [("a", "b", "worn"), ("b", "c", "worn")])
    harm(tmp_path)
    prepared = prepared_of(config)
    assert [item.item_id for item in prepared.items] == list("bcdef")
    assert [(edge.item_a, edge.item_b) for edge in prepared.edges] == [("b", "c")]
    set_aside = report_of(prepared)["set_aside"]
    assert list(set_aside) == ["a"]
    assert set_aside["a"].startswith(reason)
    assert f"(`a`: {escaped(set_aside['a'], most=2000)})" in (prepared.path / "report.md").read_text()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"item_id": "https://shop.example/" + "a" * 500},
            "the ID has 521 characters; at most 512 are possible",
        ),
        ({"item_id": "a\tb"}, "the ID 'a\\tb' has control characters or lone surrogates"),
        ({"title": "x" * 2_001}, "the title has 2,001 characters; at most 2,000 are possible"),
        (
            {"categories": [f"c{i}" for i in range(101)]},
            "the item has 101 categories; at most 100 are possible",
        ),
    ],
)
def test_skips_an_item_that_the_api_could_not_hold(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    config = edges_config(tmp_path, [("b", "c", "worn")])
    spoil(tmp_path, "a", **changes)
    [(item_id, told)] = report_of(prepared_of(config))["set_aside"].items()
    assert item_id == changes.get("item_id", "a")
    assert told.startswith(reason)


def test_keeps_a_text_only_item_without_pairs(tmp_path: Path) -> None:
    config = edges_config(tmp_path, [("a", "b", "worn"), ("b", "c", "worn")])
    spoil(tmp_path, "a", image="")
    prepared = prepared_of(config)
    assert [(item.item_id, bool(item.picture)) for item in prepared.items] == [
        ("a", False), *((name, True) for name in "bcdef"),
    ]  # fmt: skip
    assert [(edge.item_a, edge.item_b) for edge in prepared.edges] == [("b", "c")]
    assert [prepared.items[row].item_id for row in prepared.rows(Split.TRAIN)] == list("bcdef")
    report = report_of(prepared)
    assert report["items"] == {"kept": 6, "text_only": 1, "train": 5, "validation": 0, "test": 0}
    assert report["log"] == {"edges_of_text_only_items": 1}
    assert "5 for training" in (readable := (prepared.path / "report.md").read_text())
    assert "1 without a picture (indexed, but not trained on)" in readable


def test_can_skip_text_only_items(tmp_path: Path) -> None:
    config = edges_config(tmp_path, [("b", "c", "worn")], text_only=False)
    spoil(tmp_path, "a", image="")
    prepared = prepared_of(config)
    assert [item.item_id for item in prepared.items] == list("bcdef")
    assert report_of(prepared)["set_aside"] == {"a": "no picture"}


def test_text_only_item_of_a_log_has_no_pairs(tmp_path: Path) -> None:
    config = two_camps(tmp_path)
    everything = prepared_of(config)
    item_id = everything.edges[0].item_a
    spoil(tmp_path, item_id, image="")
    prepared = prepared_of(config)
    assert len(prepared.items) == len(everything.items)
    assert not [edge for edge in prepared.edges if item_id in (edge.item_a, edge.item_b)]
    assert report_of(prepared)["log"]["edges_of_text_only_items"] > 0


def test_rejects_too_few_usable_items_with_the_reasons(tmp_path: Path) -> None:
    config = edges_config(tmp_path, [("a", "b", "worn")])
    for name in "abcd":
        (tmp_path / f"{name}.png").unlink()
    with pytest.raises(
        InputError, match=r"has 2 usable items with a picture; at least 3 .* a: picture a\.png does not exist"
    ):
        prepare(config)
    assert not config.out.exists()


def test_too_few_items_of_which_none_names_a_picture_do_not_lack_pictures(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    write_rows(
        path, [{"item_id": "a", "title": "Red mug", "image": ""}, {"item_id": "b", "title": " ", "image": ""}]
    )
    config = edges_config(tmp_path / "other", [("a", "b", "worn")]).model_copy(update={"items": (path,)})
    with pytest.raises(
        InputError,
        match=r"has 1 usable item; at least 3 are needed\. Add items or correct the unusable ones\. b: no text in",
    ):
        prepare(config)


def test_finds_pictures_in_the_images_folder(tmp_path: Path) -> None:
    config = edges_config(tmp_path, [("a", "b", "worn")], images=tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    for name in "abcd":
        (tmp_path / f"{name}.png").rename(tmp_path / "elsewhere" / f"{name}.png")
    assert [item.item_id for item in prepared_of(config).items] == list("abcd")


def scaled(picture: Image.Image, folder: Path, name: str = "in.png", **options: Any) -> Image.Image:
    picture.save(folder / name, **options)
    suffix = scale_picture(folder / name, folder / "out", 32)
    with Image.open(folder / f"out{suffix}") as kept:
        kept.load()
        return kept


def test_scales_the_longest_side_of_a_large_picture(tmp_path: Path) -> None:
    assert scaled(Image.new("RGB", (128, 64), "red"), tmp_path).size == (32, 16)


def test_small_picture_keeps_its_pixels(tmp_path: Path) -> None:
    picture = Image.effect_noise((20, 10), 90).convert("RGB")
    assert scaled(picture, tmp_path).tobytes() == picture.tobytes()


def test_rotates_a_photograph_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    assert scaled(Image.new("RGB", (30, 20)), tmp_path, "in.jpg", exif=exif).size == (20, 30)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_become_white(mode: str, tmp_path: Path) -> None:
    picture = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    picture.putpixel((0, 0), (0, 0, 0, 255))
    kept = scaled(picture.quantize(8), tmp_path) if mode == "P" else scaled(picture.convert(mode), tmp_path)
    assert (kept.getpixel((0, 0)), kept.getpixel((5, 5))) == ((0, 0, 0), (255, 255, 255))


def test_converts_every_mode_to_rgb(tmp_path: Path) -> None:
    for number, mode in enumerate(("1", "L", "I;16", "CMYK")):
        name = f"in{number}.{'tif' if mode == 'CMYK' else 'png'}"
        assert scaled(Image.new(mode, (8, 8)), tmp_path, name).mode == "RGB"


@pytest.mark.filterwarnings("ignore")  # warnings of Pillow about damaged tags and sizes
def test_damaged_picture_raises_only_input_error(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    for number in range(120):
        name = f"in.{('png', 'jpg', 'gif', 'bmp', 'webp', 'avif')[number % 6]}"
        Image.effect_noise((24, 24), 99).convert("RGB").save(tmp_path / name)
        raw = bytearray((tmp_path / name).read_bytes())
        for at in noise.integers(0, min(len(raw), 200), size=3):
            raw[at] = noise.integers(0, 256)
        (tmp_path / name).write_bytes(raw[: noise.integers(len(raw) // 2, len(raw) + 1)])
        with suppress(InputError):
            scale_picture(tmp_path / name, tmp_path / "out", 16)


def test_downloads_pictures_only_if_asked(tmp_path: Path) -> None:
    config = edges_config(tmp_path, [("a", "b", "worn"), ("b", "c", "worn")])
    with picture_server() as host:
        spoil(tmp_path, "a", image=f"http://{host}/ok/a.jpg")
        unasked = prepared_of(config)
        assert next(item for item in unasked.items if item.item_id == "a").picture == ""
        assert report_of(unasked)["advice"] == [
            "1 item has only the address of a picture, not downloaded, so it is kept without a picture: "
            f"the picture is an address (http://{host}/...); give "
            "--fetch to download it."
        ]
        skipped = prepared_of(config.model_copy(update={"text_only": False}))
        assert list(report_of(skipped)["set_aside"]) == ["a"]
        asked = prepared_of(config.model_copy(update={"fetch": True, "fetch_hosts": (host,)}))
    item = next(item for item in asked.items if item.item_id == "a")
    with Image.open(asked.path / item.picture) as picture:
        assert picture.size == (96, 96)
    assert (config.out.parent / "fetched-pictures" / "addresses.jsonl").is_file()

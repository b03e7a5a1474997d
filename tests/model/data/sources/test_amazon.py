"""The three editions of the Amazon reviews, in made-up rows of their layouts."""

import json
from pathlib import Path
from typing import Any

import pytest

from model.data.sources.amazon import is_markup
from model.errors import InputError

from .source_reading import items_of, log_of, opened, put, skipped


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


ONION = {
    "main_category": "Grocery", "title": "Onion &amp; Leek", "average_rating": 4.5, "rating_number": 12,
    "features": ["Fresh"], "description": ["A bulb.", "Red."], "price": 3.5, "store": "Farm",
    "images": [
        {"thumb": "https://x/b._SS40_.jpg", "large": "https://x/b.jpg", "variant": "PT01", "hi_res": None},
        {"thumb": "https://x/a._SS40_.jpg", "large": "https://x/a.jpg", "variant": "MAIN", "hi_res": "https://x/A.jpg"},
    ],
    "categories": ["Food", "Vegetables"], "details": {"Brand": "Own", "Weight": "1 pound"}, "parent_asin": "B01",
}  # fmt: skip

LEEK = {
    "main_category": "Grocery", "title": "Leek", "features": ["Long"], "description": [], "price": "from 14.99",
    "images": [], "categories": [], "details": "{}", "parent_asin": "B02", "average_rating": {"value": 4},
}  # fmt: skip


def review(user: str, item: str, rating: float, time: int) -> dict[str, Any]:
    return {
        "rating": rating, "title": "t", "text": "x", "images": [], "asin": f"{item}-red", "parent_asin": item,
        "user_id": user, "timestamp": time,
    }  # fmt: skip


def test_2023_items_and_reviews(tmp_path: Path) -> None:
    put(tmp_path / "meta_Grocery.jsonl.gz", lines(ONION, LEEK))
    put(
        tmp_path / "Grocery.jsonl.gz",
        lines(review("u1", "B01", 5.0, 1588687728923), review("u2", "B02", 1.0, 1000)),
    )
    source = opened("amazon-2023", tmp_path)
    assert items_of(source) == {
        "B01": {
            "item_id": "B01", "title": "Onion & Leek", "description": "A bulb.\nRed.",
            "categories": ["Food", "Vegetables"], "images": ["https://x/a.jpg", "https://x/A.jpg", "https://x/b.jpg"],
            "main_category": "Grocery", "store": "Farm", "price": 3.5, "average_rating": 4.5, "rating_number": 12,
            "brand": "Own",
        },
        # The price "from 14.99" and the rating that is an object are no numbers, and do not make the columns texts.
        "B02": {
            "item_id": "B02", "title": "Leek", "description": "Long", "categories": ["Grocery"], "images": [],
            "main_category": "Grocery",
        },
    }  # fmt: skip
    assert log_of(source) == [("u1", "B01", 5.0, 1588687728.923), ("u2", "B02", 1.0, 1000.0)]
    assert skipped(source) == {}


def test_2023_parts_of_the_ratings_are_read_together_and_instead_of_the_reviews(tmp_path: Path) -> None:
    put(tmp_path / "raw/meta_Grocery.jsonl", lines(ONION))
    put(tmp_path / "raw/Grocery.jsonl", lines(review("u9", "B01", 5.0, 1)))
    for part, user in (("train", "u1"), ("valid", "u2"), ("test", "u3")):
        text = f"user_id,parent_asin,rating,timestamp\n{user},B01,4.0,1588687728923\n"
        put(tmp_path / f"5core/Grocery.{part}.csv", text)
    source = opened("amazon-2023", tmp_path)
    assert sorted(log_of(source)) == [(user, "B01", 4.0, 1588687728.923) for user in ("u1", "u2", "u3")]
    assert "Grocery.jsonl was not read: it has the reviews of the same category" in source.ledgers[0].notes


def test_2023_pictures_of_a_table_have_one_list_for_each_size(tmp_path: Path) -> None:
    images = {"hi_res": [None, "H"], "large": ["L", "M"], "thumb": ["T", "U"], "variant": ["PT01", "MAIN"]}
    put(tmp_path / "meta_X.jsonl", lines({**ONION, "images": images}))
    source = opened("amazon-2023", tmp_path, edges=Path("e.csv"), relation_texts=Path("r.csv"))
    assert items_of(source)["B01"]["images"] == ["M", "H", "L"]


def test_several_categories_are_read_and_missing_reviews_are_noted(tmp_path: Path) -> None:
    put(tmp_path / "meta_A.jsonl", lines(ONION))
    put(tmp_path / "meta_B.jsonl", lines(LEEK))
    put(tmp_path / "A.jsonl", lines(review("u", "B01", 5.0, 1000)))
    put(tmp_path / "C.jsonl", lines(review("u", "B03", 5.0, 1000)))
    source = opened("amazon-2023", tmp_path)
    assert list(items_of(source)) == ["B01", "B02"]
    assert log_of(source) == [("u", "B01", 5.0, 1000.0)]
    notes = {ledger.path.name: ledger.notes for ledger in source.ledgers}
    assert notes["meta_B.jsonl"] == ["the folder has no reviews of this category"]
    assert notes["A.jsonl"] == ["C.jsonl was not read: the folder has no meta_ file for it"]


def test_2018_rows_without_markup(tmp_path: Path) -> None:
    span = '<span class="a-size-medium a-color-secondary"'
    put(
        tmp_path / "meta_Gifts.json.gz",
        lines(
            {
                "asin": "1", "title": "Card", "brand": "by\n    \n    Maker", "price": "$1,250.00", "main_cat": "Gifts",
                "category": ["Gifts", "Gifts", "No fees, and no end date.", "</span></span>", "Card 25"],
                "description": ["A", "card"], "feature": [],
                "imageURL": ["https://x/I/a._SX38_SY50_CR,0,0,38,50_.jpg"], "imageURLHighRes": ["https://x/I/a.jpg"],
            },
            {"asin": "2", "title": span, "category": ["Gifts"]},
            {"asin": "1", "title": "Card again", "category": ["Gifts"]},
            {
                "asin": "3", "title": "Box", "price": ".a-box-inner{background-color:#fff}#widget .x", "brand": "",
                "category": [], "main_cat": '<img src="https://x/f.png" alt="AMAZON FASHION"/>',
                "image": ["https://x/I/b._SS40_.jpg"], "description": [], "feature": ["Square"],
            },
        ),
    )  # fmt: skip
    put(
        tmp_path / "Gifts_5.json.gz",
        lines(
            {
                "overall": 4.0,
                "reviewerID": "A1",
                "asin": "1",
                "unixReviewTime": 1529193600,
                "style": {"Size:": "M"},
            }
        ),
    )
    source = opened("amazon-2018", tmp_path)
    assert items_of(source) == {
        "1": {
            "item_id": "1", "title": "Card", "description": "A\ncard", "categories": ["Gifts"], "price": 1250.0,
            "images": ["https://x/I/a.jpg", "https://x/I/a._SX38_SY50_CR,0,0,38,50_.jpg"], "brand": "Maker",
            "main_cat": "Gifts",
        },
        "3": {
            "item_id": "3", "title": "Box", "description": "Square", "categories": ["Amazon Fashion"],
            "images": ["https://x/I/b.jpg", "https://x/I/b._SS40_.jpg"], "main_cat": "Amazon Fashion",
        },
    }  # fmt: skip
    assert log_of(source) == [("A1", "1", 4.0, 1529193600.0)]
    assert skipped(source) == {
        "the title is markup of a web page": 1,
        "the ID (item_id) is that of an earlier row": 1,
    }
    assert source.ledgers[0].skipped["the title is markup of a web page"].examples == [(2, span)]
    assert source.changes["prices that were markup of a web page left out"] == 1


@pytest.mark.parametrize(
    ("title", "torn"),
    [
        ('<span class="a-size-medium a-color-secondary"', True),
        (' Magazines" />', True),
        ("<img src='x.png'>", True),
        ("var aPageStart = (new Date()).getTime();", True),
        (".a-box{color:red}", True),
        ("<b>Bold</b> hat", False),
        ("I <3 hats", False),
        ("5 < 6 > 4", False),
        (".hack part 2", False),
        ("帽子", False),
        ("!!!", False),
    ],
)
def test_a_torn_off_piece_of_a_page_is_no_title(title: str, torn: bool) -> None:
    assert is_markup(title) is torn


def test_2014_rows_are_python_literals(tmp_path: Path) -> None:
    put(
        tmp_path / "meta_Music.json.gz",
        "{'asin': '0001', 'title': \"Bob's drum\", 'price': 9.5, 'imUrl': 'http://x/I/a._SY300_.jpg', 'brand': 'Bob', "
        "'related': {'also_bought': ['2']}, 'categories': [['Music', 'Drums'], ['Gifts']], 'description': 'Loud'}\n"
        "{'asin': '0002', 'title': 'Gong', 'imUrl': 'http://x/icons/no-img-sm._V1_.gif', 'categories': [['Music']]}\n"
        "{'asin': __import__('os').getcwd(), 'title': 'Run me'}\n",
    )
    put(tmp_path / "ratings_Music.csv", "A1,0001,5.0,1393545600\nA2,0002,1.0,1363392000\n")
    source = opened("amazon-2014", tmp_path)
    assert items_of(source) == {
        "0001": {
            "item_id": "0001", "title": "Bob's drum", "description": "Loud", "categories": ["Music", "Drums", "Gifts"],
            "images": ["http://x/I/a.jpg", "http://x/I/a._SY300_.jpg"], "price": 9.5, "brand": "Bob",
        },
        "0002": {"item_id": "0002", "title": "Gong", "description": "", "categories": ["Music"], "images": []},
    }  # fmt: skip
    assert log_of(source) == [("A1", "0001", 5.0, 1393545600.0), ("A2", "0002", 1.0, 1363392000.0)]
    assert sum(skipped(source).values()) == 1


def test_ratings_of_2018_name_the_item_first(tmp_path: Path) -> None:
    put(tmp_path / "meta_X.json", lines({"asin": "B1", "title": "Mug", "category": ["Home"]}))
    put(tmp_path / "X.csv", "B1,A1,5.0,1474502400\n")
    assert log_of(opened("amazon-2018", tmp_path)) == [("A1", "B1", 5.0, 1474502400.0)]


def test_reviews_of_2014_are_found_by_their_name(tmp_path: Path) -> None:
    put(tmp_path / "meta_X.json", "{'asin': 'B1', 'title': 'Mug'}\n")
    row = {"reviewerID": "A1", "asin": "B1", "helpful": [0, 0], "overall": 5.0, "unixReviewTime": 1393545600}
    put(tmp_path / "reviews_X_5.json.gz", lines(row))
    assert log_of(opened("amazon-2014", tmp_path)) == [("A1", "B1", 5.0, 1393545600.0)]


def test_missing_files_are_told_by_their_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"contains no meta_\*\.jsonl or .*\.zst.*--items"):
        opened("amazon-2023", tmp_path)
    put(tmp_path / "meta_X.jsonl", lines(ONION))
    with pytest.raises(InputError, match=r"contains no <category>\.csv or <category>\.jsonl"):
        opened("amazon-2023", tmp_path)
    with pytest.raises(InputError, match=r"nowhere is no folder"):
        opened("amazon-2023", tmp_path / "nowhere")


def test_columns_are_refused_for_a_known_format(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--columns has no effect with --source hm"):
        opened("hm", tmp_path, columns={"title": "name"})


ROWS: dict[str, dict[str, Any]] = {
    "amazon-2014": {"asin": "1", "title": "A", "imUrl": "http://x/a.jpg", "categories": [["Music"]]},
    "amazon-2018": {"asin": "1", "title": "A", "imageURL": ["http://x/a.jpg"], "category": ["Music"]},
    "amazon-2023": {"parent_asin": "1", "title": "A", "images": [], "categories": ["Music"]},
}


@pytest.mark.parametrize("given", ROWS)
@pytest.mark.parametrize("asked", ROWS)
def test_files_of_another_edition_are_refused_by_its_name(given: str, asked: str, tmp_path: Path) -> None:
    put(tmp_path / "meta_A.json", lines(ROWS[given]))
    put(tmp_path / "A.jsonl", "{}")
    put(tmp_path / "A.json", "{}")
    source = opened(asked, tmp_path)
    if given == asked:
        assert items_of(source)["1"]["categories"] == ["Music"]
    else:
        with pytest.raises(InputError, match=rf"has columns of another edition: .* Use --source {given}\."):
            items_of(source)

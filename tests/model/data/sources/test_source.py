"""What every source refuses about its log before the items are worked on."""

from pathlib import Path

import polars as pl
import pytest

from model.data.prepare import prepare
from model.data.prepare_config import PrepareConfig
from model.errors import InputError

from .source_reading import opened, put

ITEMS = "item_id,title,categories,image\na,Apple,fruit,a.png\nb,Bean,fruit,b.png\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.csv", "user_id,product\nu,a\n"),
        ("log.tsv", "product\tuser_id\na\tu\n"),
        ("log.jsonl", '{"user_id": "u", "product": "a"}\n'),
        ("log.parquet", ""),
    ],
)
def test_a_log_without_items_is_refused_before_the_pictures_are_read(
    name: str, content: str, tmp_path: Path
) -> None:
    log = put(tmp_path / name, content)
    if name.endswith(".parquet"):
        pl.DataFrame({"user_id": ["u"], "product": ["a"]}).write_parquet(log)
    config = PrepareConfig(
        items=put(tmp_path / "items.csv", ITEMS), interactions=log, out=tmp_path / "prepared"
    )
    # The pictures do not exist, and would be refused too.
    with pytest.raises(
        InputError, match=rf"{name} has no column 'item_id'.* --columns item_id=product\. The file has: "
    ):
        prepare(config)
    assert not config.out.exists()


@pytest.mark.parametrize(
    ("source", "files", "missing"),
    [
        ("amazon-2023", {"meta_X.jsonl": '{"parent_asin": "1"}', "X.jsonl": '{"asin": "1"}'}, "'user_id'"),
        (
            "amazon-2018",
            {"meta_X.json": '{"asin": "1"}', "X_5.json": '{"reviewerID": "u", "title": "t"}'},
            "'asin'",
        ),
        (
            "hm",
            {"articles.csv": "article_id\n1\n", "transactions_train.csv": "t_dat,customer_id\n1,u\n"},
            "'article_id'",
        ),
        (
            "goodreads",
            {
                "goodreads_books.json": '{"book_id": "1"}',
                "goodreads_interactions.csv": "user_id,is_read\n1,1\n",
            },
            "'book_id'",
        ),
    ],
)
def test_each_source_names_the_column_that_its_log_lacks(
    source: str, files: dict[str, str], missing: str, tmp_path: Path
) -> None:
    for name, content in files.items():
        put(tmp_path / name, content)
    with pytest.raises(InputError, match=f"has no column .*{missing}"):
        opened(source, tmp_path).check_log()

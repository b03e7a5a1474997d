"""H&M: IDs with leading zeros, pictures in folders by prefix, and repeated purchases."""

from pathlib import Path

from .source_reading import items_of, log_of, opened, put

ARTICLES = (
    "article_id,product_code,prod_name,product_type_no,product_type_name,product_group_name,colour_group_name,"
    "index_group_name,detail_desc\n"
    '0108775015,0108775,Strap top,253,Vest top,Garment Upper body,Black,Ladieswear,"Jersey top, narrow straps."\n'
    "0108775044,0108775,Strap top,253,Vest top,Unknown,White,Ladieswear,\n"
)

TRANSACTIONS = (
    "t_dat,customer_id,article_id,price,sales_channel_id\n" + 2 * "2018-09-20,c1,0108775015,0.05,2\n"
)


def test_articles_and_transactions(tmp_path: Path) -> None:
    put(tmp_path / "articles.csv", ARTICLES)
    put(tmp_path / "transactions_train.csv", TRANSACTIONS)
    put(tmp_path / "images/010/0108775015.jpg", "")
    source = opened("hm", tmp_path)
    items = items_of(source)
    assert items["0108775015"] == {
        "item_id": "0108775015", "title": "Strap top", "description": "Jersey top, narrow straps.",
        "categories": ["Ladieswear", "Garment Upper body", "Vest top"], "images": ["images/010/0108775015.jpg"],
        "product_type_name": "Vest top", "product_group_name": "Garment Upper body", "colour_group_name": "Black",
        "index_group_name": "Ladieswear",
    }  # fmt: skip
    assert (items["0108775044"]["categories"], items["0108775044"]["images"]) == (
        ["Ladieswear", "Vest top"],
        [],
    )
    assert source.changes == {"articles without a file of their picture": 1}
    assert log_of(source) == 2 * [("c1", "0108775015", None, 1537401600.0)]


def test_lost_zeros_come_back_and_pictures_may_lie_elsewhere(tmp_path: Path) -> None:
    put(tmp_path / "data/articles.csv", ARTICLES.replace("\n0108775015", "\n108775015"))
    put(tmp_path / "data/transactions_train.csv", TRANSACTIONS.replace("0108775015", "108775015"))
    put(tmp_path / "pictures/010/0108775015.jpg", "")
    source = opened("hm", tmp_path / "data", images=tmp_path / "pictures")
    assert items_of(source)["0108775015"]["images"] == ["010/0108775015.jpg"]
    assert {item for _, item, _, _ in log_of(source)} == {"0108775015"}

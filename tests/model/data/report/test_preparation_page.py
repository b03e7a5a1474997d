"""`report.md` and `report.html` show the same report, whatever the titles of the shop contain."""

import json
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from PIL import Image

from model.data.report.preparation_files import write_report
from model.data.report.preparation_report import (
    ColumnInfo,
    FileCounts,
    PreparationReport,
    RelationCounts,
    SkippedCounts,
)
from model.data.report.preparation_verdict import judge
from model.data.report.skipped_items import grouped
from tests.model.page.parsed_page import Page

from .shop import counted, options

HOSTILE = {
    "a": "<script>alert(1)</script> | mug",
    "b": '"><img src=http://example.com/x.png onerror=alert(1)>',
    "c": "</article></div></section><!-- pairs-1 -->\n\n## Verdict",
}


def written(folder: Path, report: PreparationReport) -> Page:
    """Write the report, with a picture for a and b."""
    (folder / "pictures").mkdir(parents=True)
    for name, colour in (("a", (250, 0, 0)), ("b", (0, 0, 250))):
        Image.new("RGB", (300, 200), colour).save(folder / "pictures" / f"{name}.png")
    write_report(report.model_copy(update={"verdict": judge(report, options())}), folder)
    return Page((folder / "report.html").read_text("utf-8"))


def full(titles: dict[str, str] | None = None, value: str = "red") -> PreparationReport:
    skipped = {f"s{number}": f"picture {number}.jpg does not exist" for number in range(5000)}
    return counted(titles=titles).model_copy(
        update={
            "files": (
                FileCounts(
                    file=f"items-{value}.csv",
                    rows=30,
                    kept=28,
                    skipped=(
                        SkippedCounts(reason="the item has no ID", rows=2, examples=((7, value), (9, ""))),
                    ),
                    notes=("UTF-8", f"separator {value}"),
                ),
            ),
            "columns": (
                ColumnInfo(
                    column=f"colour {value}",
                    type="text",
                    decision="all values are texts",
                    examples=(value, "blue"),
                    unread=3,
                    unread_examples=("N/A",),
                ),
            ),
            "advice": (f"Mind {value}.",),
            "changes": {"HTML tags removed": 77},
            "set_aside": skipped,
            "skipped_items": grouped(skipped),
        }
    )


def test_page_shows_the_tables_of_the_report(tmp_path: Path) -> None:
    page = written(tmp_path, full())
    assert page.table("relation", "users")[1:] == [
        ["read", "2", "3", "3", "0", "0"],
        ["cook", "1", "4", "1", "0", "1"],
    ]
    assert page.table("split", "pairs within")[1:] == [
        ["train", "3", "4", ""],
        ["validation", "0", "0", "0"],
        ["test", "2", "1", "1"],
    ]
    assert page.table("file", "rows")[1:] == [["items-red.csv", "30", "28", "2", "UTF-8; separator red"]]
    assert page.table("column", "type")[1:] == [
        ["colour red", "text", "all values are texts", "red, blue", "3 (N/A)"]
    ]
    assert "2 rows: the item has no ID (line 7: red; line 9)" in page.text
    assert "5,000 items: picture … does not exist (s0: picture 0.jpg does not exist; s1:" in page.text
    assert "HTML tags removed: 77" in page.text
    assert "Training is not worth its time yet: it has 4 pairs under 2 relations." in page.text


def test_page_shows_filters_shares_and_histograms_as_figures(tmp_path: Path) -> None:
    page = written(tmp_path, full())
    assert "rated 4 or higher (--min-rating)1575 %" in page.text
    assert "Books62.5 %lift 1.46" in page.text
    assert "items per user: median 3, at most 3" in page.text
    assert page.tags.count("svg") == 3


def test_sample_pairs_have_their_pictures_side_by_side(tmp_path: Path) -> None:
    page = written(tmp_path, full())
    # read: a-b, a-c, b-c; cook: d-e, a-b. Only a and b have a file.
    pictures = []
    for uri in page.loaded:
        if uri.startswith("data:image/jpeg"):
            with Image.open(BytesIO(b64decode(uri.partition(",")[2]))) as picture:
                colour = picture.convert("RGB").getpixel((5, 5))
                assert isinstance(colour, tuple)
                pictures.append((picture.size, "red" if colour[0] > 200 else "blue"))
    assert pictures == [((128, 85), colour) for colour in ("red", "blue", "red", "blue", "red", "blue")]
    assert page.text.count("picture not shown") == 4
    assert "9 users, NPMI 0.90" in page.text


@pytest.mark.parametrize("value", [*HOSTILE.values(), "`a` | **b**", "\u202egnp.exe", "x" * 5000])
def test_texts_of_the_shop_neither_break_nor_inject(tmp_path: Path, value: str) -> None:
    plain = written(tmp_path / "plain", full())
    page = written(tmp_path / "hostile", full(HOSTILE, value))
    assert page.tags == plain.tags
    assert [len(table) for table in page.tables] == [len(table) for table in plain.tables]
    assert [len(row) for table in page.tables for row in table] == [
        len(row) for table in plain.tables for row in table
    ]
    assert not [
        address for address in page.loaded if not address.startswith(("data:image/jpeg;base64,", "#"))
    ]
    markdown = MarkdownIt("commonmark", {"html": True}).enable("table")
    shown = [
        Page(markdown.render((tmp_path / name / "report.md").read_text("utf-8")))
        for name in ("plain", "hostile")
    ]
    assert shown[0].tags == shown[1].tags
    assert shown[1].loaded == []
    assert "<script>alert(1)</script> | mug" in page.text
    assert "<script>alert(1)</script> | mug" in shown[1].text


def test_report_json_round_trips(tmp_path: Path) -> None:
    written(tmp_path, full())
    content = json.loads((tmp_path / "report.json").read_text())
    report = PreparationReport.model_validate(content)
    assert report.model_dump(mode="json") == content
    assert len(report.set_aside) == 5000


def test_page_with_a_hundred_relations_of_noisy_pictures_stays_small(tmp_path: Path) -> None:
    own = counted().relations[0]
    many = tuple(own.model_copy(update={"relation": f"read-{number}"}) for number in range(100))
    (tmp_path / "pictures").mkdir()
    for name in "abc":
        Image.effect_noise((256, 256), 90).convert("RGB").save(tmp_path / "pictures" / f"{name}.png")
    write_report(counted().model_copy(update={"relations": many}), tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 3_000_000
    html = (tmp_path / "report.html").read_text("utf-8")
    first = [part.partition("</article>")[0] for part in html.split('<div class="pairs"><article>')[1:]]
    assert [part.count("<img") for part in first] == [2] * 100


def test_pair_without_a_title_is_named_by_its_id(tmp_path: Path) -> None:
    page = written(tmp_path, counted(titles={"a": "", "b": " "}))
    lines = (tmp_path / "report.md").read_text("utf-8").splitlines()
    assert "- `a` and `b` (9 users, NPMI 0.90)" in lines
    assert "- `a` and “Title c” (5 users, NPMI 0.50)" in lines
    assert page.tags.count("article") == 5


def test_relation_without_pairs_shows_its_categories_as_a_table(tmp_path: Path) -> None:
    lone = RelationCounts.model_validate({**counted().relations[0].model_dump(), "samples": ()})
    page = written(tmp_path, counted().model_copy(update={"relations": (lone,)}))
    assert page.table("category", "share")[1] == ["Books", "62.5 %", "1.46"]

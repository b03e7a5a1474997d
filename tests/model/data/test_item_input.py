"""Input format of items: the text that the text tower reads, and the stored picture."""

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from model.data.item_input import ITEM_FORMAT_FILE, ItemFormat, decoded
from model.data.pictures.stored_pictures import encode_picture
from model.data.prepare_config import PrepareConfig
from model.errors import PictureError

GIVEN = (" Red mug ", ["Kitchen", "Mugs"], " Holds tea. ")


def picture(format: str, size: tuple[int, int] = (100, 50)) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, "teal").save(file, format)
    return file.getvalue()


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (("title", "categories", "description"), "Red mug.\nKitchen, Mugs.\nHolds tea."),
        (("categories", "title"), "Kitchen, Mugs.\nRed mug"),
        (("description",), "Holds tea."),
    ],
)
def test_joins_texts_in_the_order_of_the_fields(fields: tuple[str, ...], text: str) -> None:
    assert ItemFormat(text_fields=fields).text(*GIVEN) == text


def test_line_break_separates_fields_only() -> None:
    found = ItemFormat().text("Red\nmug", [" Kitchen.\nTea "], "Holds tea.\n\n  Red.")
    assert found.split("\n") == ["Red mug.", "Kitchen. Tea.", "Holds tea. Red."]


def test_omits_empty_fields() -> None:
    assert ItemFormat().text("Red mug", [], " ") == "Red mug"
    assert ItemFormat().text(" ", [], "") == ""


def test_default_format_matches_the_defaults_of_prepare() -> None:
    usual = PrepareConfig(items=Path("i"), out=Path("o"), interactions=Path("l"))
    assert ItemFormat() == ItemFormat(text_fields=usual.text_fields, picture_size=usual.picture_size)


def test_reads_the_format_from_prepared_data_or_its_own_file(tmp_path: Path) -> None:
    options = PrepareConfig(
        items=Path("i"), out=Path("o"), interactions=Path("l"), text_fields=("title",), picture_size=64
    )
    (tmp_path / "config.json").write_text(options.model_dump_json())
    read = ItemFormat.read(tmp_path / "config.json")
    assert read == ItemFormat(text_fields=("title",), picture_size=64)
    read.write(tmp_path)
    assert ItemFormat.read(tmp_path / ITEM_FORMAT_FILE) == read
    assert ItemFormat.read(tmp_path / "absent.json") == ItemFormat()


@pytest.mark.parametrize(
    ("format", "kept", "suffix"), [("PNG", "PNG", ".png"), ("JPEG", "JPEG", ".jpg"), ("WEBP", "JPEG", ".jpg")]
)
def test_stores_a_scaled_picture_and_keeps_png_lossless(format: str, kept: str, suffix: str) -> None:
    content, ending = ItemFormat(picture_size=40).picture(picture(format))
    with Image.open(BytesIO(content)) as opened:
        assert (opened.format, opened.size, ending) == (kept, (40, 20), suffix)


def test_rejects_content_that_is_not_a_picture() -> None:
    with pytest.raises(PictureError):
        ItemFormat().picture(b"no picture")


def test_lossless_picture_keeps_its_pixels() -> None:
    drawn = Image.effect_noise((16, 16), 50).convert("RGB")
    assert decoded(encode_picture(drawn, lossless=True)[0]).tobytes() == drawn.tobytes()

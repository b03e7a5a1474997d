"""Sheet of the attention of two relations over the same items."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.data.prepared_data import Prepared
from model.embeddings.attention_map import Attention, Box, PatchWeights, TextWeights, weigh_words
from model.embeddings.free_text import FreeTextRelation
from model.encoder.encoder import Encoder
from model.errors import InputError
from model.evaluation.report.attention_sheet import (
    MAX_WORDS,
    SHADE,
    attention_html,
    draw_attention_sheet,
    pieces,
    shade,
    shares,
)
from model.evaluation.report.documents import write_documents
from model.evaluation.report.examples import AttendedItem, AttentionHalf, Examples, ShownItem
from tests.indexes.fakes import FakeEncoder
from tests.model.page.parsed_page import Page

from .contents import report
from .test_examples import perfect, questions_of

WHOLE = Box(0.0, 0.0, 1.0, 1.0)


def weights_of(text: str, weights: list[float]) -> TextWeights:
    """Give the words of a text their weights; the rest is on special tokens."""
    spans, at = [], 0
    for word in text.split():
        at = text.index(word, at)
        spans.append((at, at + len(word)))
        at += len(word)
    return weigh_words(text, [(0, 0), *spans], [1 - sum(weights), *weights])


def patches(grid: list[list[float]]) -> PatchWeights:
    values = np.array(grid, np.float32)
    return PatchWeights(values, 1 - float(values.sum()), WHOLE)


def attended(
    folder: Path, first: Attention, second: Attention, text: str = "red mug", pictured: bool = True
) -> AttendedItem:
    path = folder / "item.png"
    Image.new("RGB", (64, 64), "#e0e0e0").save(path)
    halves = AttentionHalf("colour", "The same colour.", first), AttentionHalf("shape", "One kind.", second)
    return AttendedItem(ShownItem("Red mug", path if pictured else None), text, halves)


def test_even_attention_has_a_third_of_the_shade_for_any_number_of_words() -> None:
    assert [shade(1 / count, count) for count in (2, 8, 50)] == pytest.approx([1 / 3] * 3)
    assert shade(0.0, 8) == 0.0
    assert shade(2 / 8, 8) == pytest.approx(1 / 2)


def test_pieces_are_words_with_their_shade_and_what_lies_between() -> None:
    text = "red \n mug"
    found = list(pieces(text, weights_of(text, [0.5, 0.25])))
    assert found == [("red", pytest.approx(1 / 3)), (" ", None), ("mug", pytest.approx(0.5 / 2.5))]


def test_words_that_the_network_does_not_read_are_an_ellipsis() -> None:
    weights = weights_of("red mug", [0.5, 0.5])
    assert list(pieces("red mug made of clay", weights))[-1] == (" …", None)


def test_long_text_shows_its_first_words() -> None:
    text = " ".join(["mug"] * 60)
    found = list(pieces(text, weights_of(text, [1 / 60] * 60)))
    assert sum(value is not None for _, value in found) == MAX_WORDS
    assert found[-1] == (" …", None)
    assert found[0][1] == pytest.approx(1 / 3)


def test_shares_leave_out_special_tokens_and_missing_modalities() -> None:
    text = weights_of("red mug", [0.5, 0.25])
    both = AttentionHalf("colour", "", Attention(text, patches([[0.2, 0.2]])))
    assert shares(both) == "words 75 %, patches 40 %"
    assert shares(replace(both, attention=Attention(text, None))) == "words 75 %"


def brightness(path: Path, left: int, right: int) -> float:
    """Return the mean of the red channel in the lower part of the sheet, which contains the pictures."""
    pixels = np.asarray(Image.open(path).convert("RGB"))[-250:-60, left:right, 0]
    return float(pixels.mean())


def test_patches_in_both_halves_have_one_scale(tmp_path: Path) -> None:
    text = weights_of("red mug", [0.5, 0.5])
    strong, weak = patches([[0.25, 0.25], [0.25, 0.25]]), patches([[0.01, 0.01], [0.01, 0.01]])
    item = attended(tmp_path, Attention(text, strong), Attention(text, weak))
    draw_attention_sheet((item,), 0, tmp_path / "attention.png")
    left, right = (
        brightness(tmp_path / "attention.png", 40, 270),
        brightness(tmp_path / "attention.png", 740, 960),
    )
    # Both grids are uniform, but nearly all of the attention on the right is on special tokens.
    assert left > right + 15


def coloured(path: Path, left: int, right: int) -> int:
    """Count the pixels whose colour is nearly that of a word with all of the attention."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)[130:, left:right]
    return int((np.abs(pixels - [round(255 + (part - 255) * 0.5) for part in SHADE]).sum(axis=2) < 12).sum())


def test_heavy_word_is_shaded_only_under_its_relation(tmp_path: Path) -> None:
    grid = patches([[0.0]])
    first, second = weights_of("red mug", [1.0, 0.0]), weights_of("red mug", [0.0, 0.0])
    item = attended(tmp_path, Attention(first, grid), Attention(second, grid))
    draw_attention_sheet((item,), 0, tmp_path / "attention.png")
    assert coloured(tmp_path / "attention.png", 300, 690) > 400
    assert coloured(tmp_path / "attention.png", 990, 1400) == 0
    html = attention_html((item,), 0)
    assert html.count('<mark style="--share:50%">red</mark>') == 1
    assert html.count('<mark style="--share:0%">mug</mark>') == 2


def test_same_sheet_has_the_same_bytes(tmp_path: Path) -> None:
    half = Attention(weights_of("red mug", [0.5, 0.5]), patches([[0.5, 0.5]]))
    item = attended(tmp_path, half, half)
    for name in ("one.png", "two.png"):
        draw_attention_sheet((item,), 0, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_item_without_picture_has_only_words(tmp_path: Path) -> None:
    half = Attention(weights_of("red mug", [0.5, 0.5]), None)
    item = attended(tmp_path, half, half, pictured=False)
    draw_attention_sheet((item,), 0, tmp_path / "attention.png")
    page = Page(attention_html((item,), 0))
    assert page.text.count("no picture") == 2
    assert page.text.count("words 100 %") == 2
    assert "img" not in page.tags


def test_item_without_text_has_only_a_picture(tmp_path: Path) -> None:
    half = Attention(None, patches([[1.0]]))
    item = attended(tmp_path, half, half)
    draw_attention_sheet((item,), 0, tmp_path / "attention.png")
    page = Page(attention_html((item,), 0))
    assert page.text.count("patches 100 %") == 2
    assert page.tags.count("img") == 2


def test_texts_of_the_user_are_escaped(tmp_path: Path) -> None:
    text = "<script>alert(1)</script> & mug"
    half = Attention(weights_of(text, [0.2, 0.2, 0.2]), None)
    item = attended(tmp_path, half, half, text, pictured=False)
    hostile = replace(item.halves[0], relation_id="<i>", description="<script>alert(2)</script>")
    item = AttendedItem(ShownItem("<b>mug</b>", None), text, (hostile, item.halves[1]))
    draw_attention_sheet((item,), 0, tmp_path / "attention.png")
    page = Page(attention_html((item,), 0))
    assert "script" not in page.tags
    for shown in (text, "<i>", "<script>alert(2)</script>", "<b>mug</b>"):
        assert shown in page.text


class Colourist(FakeEncoder):
    """Fake encoder that attends to the first word under `colour`, and to the second under `shape`."""

    def explain(
        self, text: str | None, picture: Image.Image | None, relation: str | FreeTextRelation
    ) -> Attention:
        assert text is not None
        assert picture is not None
        heavy = ("colour", "shape").index(str(relation))
        share = picture.getpixel((0, 0))[0] / 255  # type: ignore[index]
        return Attention(weights_of(text, [float(place == heavy) for place in (0, 1, 2)]), patches([[share]]))


class UnknownLayout(Colourist):
    """Fake encoder whose image tower does not tell where its patches are."""

    def explain(
        self, text: str | None, picture: Image.Image | None, relation: str | FreeTextRelation
    ) -> Attention:
        if picture is not None:
            raise InputError("the positions of its patches are unknown")
        assert text is not None
        return Attention(weights_of(text, [0.5, 0.25, 0.25]), None)


def heaviest(half: AttentionHalf) -> str:
    assert half.attention.text is not None
    return max(half.attention.text.words, key=lambda word: word.weight).text


def test_unknown_layout_of_patches_shows_only_words(prepared: Path) -> None:
    data = Prepared.open(prepared)
    drawn = Examples.of(perfect(data), questions_of(prepared), data, 3, UnknownLayout())
    assert [half.attention.image for one in drawn.attended for half in one.halves] == [None] * 8
    page = Page(attention_html(drawn.attended, 3))
    assert page.text.count("positions of patches unknown") == 8
    assert "no picture" not in page.text


def test_attention_is_of_the_first_cases_under_their_relations(prepared: Path, tmp_path: Path) -> None:
    data = Prepared.open(prepared)
    drawn = Examples.of(perfect(data), questions_of(prepared), data, 3, Colourist())
    assert [one.item for one in drawn.attended] == [case.item for case in drawn.cases[:4]]
    for one in drawn.attended:
        assert one.text.startswith(one.item.title)
        assert [half.relation_id for half in one.halves] == ["colour", "shape"]
        assert [heaviest(half) for half in one.halves] == one.item.title.split()[:2]
        assert one.item.picture is not None
        red = Image.open(one.item.picture).convert("RGB").getpixel((0, 0))[0] / 255  # type: ignore[index]
        assert one.halves[0].attention.image is not None
        assert one.halves[0].attention.image.grid[0, 0] == pytest.approx(red)
    write_documents(report(rcml=0.6), tmp_path, drawn, 3)
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    assert "Attention over 4 test items, drawn at random (seed 3), under two relations each" in page.text
    assert page.tags.count("mark") == 5 + 4 * 2 * 3  # the legend, and three words in each half
    assert "](attention.png)" in (tmp_path / "report.md").read_text("utf-8")
    assert (tmp_path / "attention.png").is_file()


def test_attention_does_not_change_the_other_examples(prepared: Path) -> None:
    data, questions = Prepared.open(prepared), questions_of(prepared)
    without = Examples.of(perfect(data), questions, data, 0)
    drawn = Examples.of(perfect(data), questions, data, 0, Colourist())
    assert without.attended == ()
    assert drawn.cases == without.cases
    assert drawn.mapped.items == without.mapped.items


def test_attention_is_that_of_the_network(checkpoints: dict[str, Path], prepared: Path) -> None:
    data = Prepared.open(prepared)
    encoder = Encoder.from_pretrained(checkpoints["rcml"], "cpu")
    [first, *_] = Examples.of(perfect(data), questions_of(prepared), data, 0, encoder).attended
    assert first.item.picture is not None
    with Image.open(first.item.picture) as picture:
        expected = encoder.explain(first.text, picture.convert("RGB"), "shape")
    found = first.halves[1].attention
    assert found.text == expected.text
    assert found.image is not None
    assert expected.image is not None
    np.testing.assert_array_equal(found.image.grid, expected.image.grid)

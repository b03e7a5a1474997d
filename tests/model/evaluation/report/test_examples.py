"""Examples of a report: queries with their best candidates, and maps of items."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.config import EvaluateConfig
from model.data.pictures.thumbnails import thumbnail
from model.data.prepared_data import Prepared
from model.embeddings.encoding import Encoding
from model.evaluation.evaluation_set import EvaluationSet, make_evaluation_set
from model.evaluation.report.case_sheet import cut
from model.evaluation.report.documents import write_documents
from model.evaluation.report.examples import OTHER, Case, Examples, MappedItems, ShownItem
from model.evaluation.report.item_map import GROUP_COLOURS, draw_item_maps, group_colours, layout
from model.evaluation.scoring import NetworkScorer
from model.records import Split
from model.similarity import Similarity
from tests.model.page.parsed_page import Page
from tests.model.planted import COLOURS, SHAPES

from .contents import report

FACETS = {"colour": (COLOURS, 0), "shape": (SHAPES, 1)}


def questions_of(prepared: Path) -> EvaluationSet:
    config = EvaluateConfig(checkpoint=(prepared,), prepared=prepared, out=prepared / "none", device="cpu")
    return make_evaluation_set(Prepared.open(prepared), config)


def perfect(data: Prepared) -> NetworkScorer:
    """Score items of equal colour 1 under the relation `colour`, and so for `shape`; all items alike otherwise."""
    titles = [data.items[row].title.split() for row in data.rows(Split.TEST)]
    vectors = np.zeros((len(titles), len(data.relations), 6), np.float32)
    for place, relation in enumerate(data.relations):
        if relation.intra:
            vectors[:, place, 0] = 1
        else:
            names, at = FACETS[relation.relation_id]
            for row, words in enumerate(titles):
                vectors[row, place, names.index(words[at])] = 1
    return NetworkScorer(Encoding(vectors, vectors), Similarity.AVG)


@pytest.fixture(scope="module")
def examples(prepared: Path) -> Examples:
    data = Prepared.open(prepared)
    return Examples.of(perfect(data), questions_of(prepared), data, 0)


def test_perfect_network_finds_true_partners_of_each_query(examples: Examples) -> None:
    assert len(examples.cases) == 10
    assert len({case.item.picture for case in examples.cases}) == 10
    for case in examples.cases:
        assert [answer.relation_id for answer in case.answers] == ["colour", "shape"]
        for at, answer in enumerate(case.answers):
            word = case.item.title.split()[at]
            same = [item.title.split()[at] == word for item in answer.best]
            assert list(answer.true) == same
            assert sum(same) == min(3, answer.partners)
            assert case.item.picture not in {item.picture for item in answer.best}


def test_other_seed_draws_other_queries(prepared: Path, examples: Examples) -> None:
    data, questions = Prepared.open(prepared), questions_of(prepared)
    assert Examples.of(perfect(data), questions, data, 0).cases == examples.cases
    assert Examples.of(perfect(data), questions, data, 1).cases != examples.cases


def test_map_has_vectors_of_the_relation_with_most_test_edges(prepared: Path, examples: Examples) -> None:
    data = Prepared.open(prepared)
    counts = {
        name: sum(edge.split == Split.TEST and edge.relation_id == name for edge in data.edges)
        for name in FACETS
    }
    mapped = examples.mapped
    assert mapped.relation_id == max(counts, key=lambda name: counts[name])
    names, at = FACETS[mapped.relation_id]
    assert mapped.conditioned.argmax(axis=1).tolist() == [
        names.index(item.title.split()[at]) for item in mapped.items
    ]
    assert np.ptp(mapped.unconditioned) == 1
    assert np.ptp(mapped.unconditioned, axis=0).max() == 0
    assert list(mapped.group) == [item.title.split()[1] for item in mapped.items]


def test_layout_keeps_groups_together() -> None:
    centres = np.eye(4, dtype=np.float32)[np.repeat(np.arange(3), 20)]
    vectors = centres + np.random.default_rng(0).normal(0, 0.02, centres.shape).astype(np.float32)
    places = layout(vectors, 0)
    assert places.min() == 0
    assert places.max() == 1
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (distance.argmin(axis=1) // 20 == np.repeat(np.arange(3), 20)).all()


def test_same_seed_gives_the_same_layout() -> None:
    vectors = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    np.testing.assert_array_equal(layout(vectors, 5), layout(vectors, 5))


def test_equal_vectors_can_be_laid_out() -> None:
    places = layout(np.ones((9, 4), np.float32), 0)
    assert np.isfinite(places).all()


def test_rare_categories_share_one_colour() -> None:
    colours = group_colours(("b", "a", "b", OTHER))
    assert list(colours.items())[:2] == [("b", GROUP_COLOURS[0]), ("a", GROUP_COLOURS[1])]
    assert list(colours)[-1] == OTHER
    assert len(set(colours.values())) == 3


def test_documents_show_cases_and_maps(examples: Examples, tmp_path: Path) -> None:
    write_documents(report(rcml=0.6), tmp_path, examples)
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    assert page.text.count("true partner") >= 6 * 2
    assert all(case.item.title in page.text for case in examples.cases)
    pictures = sum(uri.startswith("data:image/jpeg") for uri in page.loaded)
    assert pictures >= 6 * 7
    found = sum(sum(answer.true) for case in examples.cases for answer in case.answers)
    assert page.classes.count("true") == found > 0
    readable = (tmp_path / "report.md").read_text("utf-8")
    for name in ("cases.png", "item_map.png", "picture_map.png"):
        assert f"]({name})" in readable
        with Image.open(tmp_path / name) as picture:
            assert np.ptp(np.asarray(picture.convert("L"))) > 200


def without_pictures(item: ShownItem) -> ShownItem:
    return replace(item, picture=None)


def bare(case: Case) -> Case:
    first, second = (
        replace(answer, best=tuple(without_pictures(item) for item in answer.best)) for answer in case.answers
    )
    return Case(without_pictures(case.item), (first, second))


def test_catalogue_without_pictures_has_cases_and_a_map_of_points(examples: Examples, tmp_path: Path) -> None:
    plain = Examples(
        tuple(bare(case) for case in examples.cases),
        replace(examples.mapped, items=tuple(without_pictures(item) for item in examples.mapped.items)),
    )
    write_documents(report(rcml=0.6), tmp_path, plain)
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    assert page.text.count("no picture") == 10 * 7
    assert (tmp_path / "cases.png").exists()
    assert (tmp_path / "item_map.png").exists()
    assert not (tmp_path / "picture_map.png").exists()


def test_titles_and_descriptions_are_escaped(examples: Examples, tmp_path: Path) -> None:
    case = examples.cases[0]
    answer = replace(case.answers[0], relation_id="<i>", description="<script>alert(2)</script> $x$ & y")
    hostile = Case(ShownItem("<script>alert(1)</script> $y$ | z", None), (answer, case.answers[1]))
    write_documents(report(rcml=0.6), tmp_path, Examples((hostile,), examples.mapped))
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    assert not {"script", "i"} & set(page.tags)
    assert "<script>alert(1)</script> $y$ | z" in page.text
    assert "<script>alert(2)</script> $x$ & y" in page.text


def test_title_in_another_script_is_cut_like_any_other(examples: Examples, tmp_path: Path) -> None:
    case = replace(examples.cases[0], item=ShownItem("茶碗" * 40, None))
    write_documents(report(rcml=0.6), tmp_path, Examples((case,), examples.mapped))
    html = (tmp_path / "report.html").read_text("utf-8")
    assert "<span>" + ("茶碗" * 40)[:59] + "…</span>" in html


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a  b\nc", "a b c"), ("abcdef", "abcdef"), ("abcdefg", "abcde…"), ("abcd fgh", "abcd…")],
)
def test_long_text_is_cut(text: str, shown: str) -> None:
    assert cut(text, 6) == shown


def test_missing_or_damaged_picture_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "damaged.png").write_bytes(b"not a picture")
    assert thumbnail(tmp_path / "gone.png", 28) is None
    assert thumbnail(tmp_path / "damaged.png", 28) is None
    assert thumbnail(None, 28) is None
    Image.new("RGB", (60, 30), "red").save(tmp_path / "wide.png")
    small = thumbnail(tmp_path / "wide.png", 28)
    assert small is not None
    assert (small.size, small.getpixel((14, 7))) == ((28, 14), (255, 0, 0))


def test_both_maps_have_the_same_places(tmp_path: Path) -> None:
    # One red item lies apart from the others, which are grey.
    vectors = np.zeros((12, 3), np.float32)
    vectors[:, 1] = np.linspace(0, 1, 12)
    vectors[0] = (9, 0, 0)
    items = []
    for number in range(12):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (40, 40), "#2a6f97" if number == 0 else "#e0e0e0").save(path)
        items.append(ShownItem(str(number), path))
    group = (OTHER,) * 12
    draw_item_maps(MappedItems("worn", tuple(items), ("blue", *group[1:]), vectors, vectors), tmp_path, 0)
    pixels = np.asarray(Image.open(tmp_path / "picture_map.png").convert("RGB")).astype(int)
    rows = np.flatnonzero((np.abs(pixels - (42, 111, 151)).sum(axis=2) < 9).any(axis=1))
    upper = (rows[rows < len(pixels) / 2].mean() - 33) / 916
    assert upper == pytest.approx(1 - layout(vectors, 0)[0, 1], abs=0.06)


def test_few_items_have_no_map(examples: Examples, tmp_path: Path) -> None:
    own = examples.mapped
    few = MappedItems(
        own.relation_id, own.items[:4], own.group[:4], own.unconditioned[:4], own.conditioned[:4]
    )
    assert draw_item_maps(few, tmp_path, 0) == ()
    assert list(tmp_path.iterdir()) == []

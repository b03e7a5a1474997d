"""Free-text relation search, compared with brute force over all tokens.

The tests cover small catalogues, large catalogues that need low-rank estimates, and catalogues that change.
"""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from io import BytesIO
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jaxtyping import Float32
from numpy import ndarray
from PIL import Image

from indexes.admin.inspection import stats
from indexes.builder.build import build
from indexes.config import BuildConfig, StatsConfig
from indexes.index import Index
from indexes.journal.change import Change
from indexes.reader import Hit
from indexes.search import free_text_search
from indexes.search.free_text_search import FreeTextSearch
from indexes.search.retrieve import KnownItems, Question, Weighted
from indexes.search.selection import Selection
from indexes.storage.filters import Condition
from indexes.storage.free_text_report import FreeTextReport
from indexes.storage.tokens import TokenStore
from indexes.vectors.contract import cosines
from model.checkpoint.checkpoint import Checkpoint
from model.data.prepared_data import Prepared
from model.embeddings.encoding import Encoding, ItemTokens, TokenRows
from model.embeddings.free_text import FreeTextBias, FreeTextRelation
from model.errors import InputError, NoTokensError
from model.records import Item
from model.similarity import Similarity, View
from tests.indexes.changes import copied, put
from tests.indexes.fakes import DIM, ITEMS, RELATIONS, FakeEncoder, FakeShop, write_checkpoint, write_prepared

WORDS = [f"w{number}" for number in range(40)]


@cache
def drawn(word: str) -> ndarray:
    seed = hashlib.sha256(word.encode()).digest()
    return np.random.default_rng(list(seed)).standard_normal(DIM).astype(np.float16)


DIRECTION = drawn("direction").astype(np.float32) / np.linalg.norm(drawn("direction").astype(np.float32))
"""Direction of the relation bias."""

TEXT_SHARE = 0.7


class TokenEncoder(FakeEncoder):
    """Encoder with one token per word and a few per picture; its relations attend to tokens as in the real network.

    It has a relation bias, its texts count more than its pictures, and the relevance of a token does not depend on its
    length.
    """

    def read_items(
        self, texts: Sequence[str], pictures: Sequence[Image.Image | None], tokens: bool = False
    ) -> Callable[[], Encoding]:
        text = self.text_tokens(texts)
        image = _rows(
            [] if one is None else [f"{channel}{value // 32}" for channel, value in enumerate(_colour(one))]
            for one in pictures
        )
        seen = ItemTokens(text, image)

        def encode() -> Encoding:
            known = [self.read_relation(relation.description) for relation in RELATIONS]
            by_text, by_image = (
                np.stack([one.vectors(rows) for one in known], axis=1) for rows in (text, image)
            )
            return Encoding(by_text, by_image, seen if tokens else None, TEXT_SHARE)

        return encode

    def encode_texts(self, texts: Sequence[str]) -> Float32[ndarray, "texts relations dim"]:
        return self.read_items(texts, [None] * len(texts))().text

    def text_tokens(self, texts: Sequence[str]) -> TokenRows:
        return _rows(text.lower().split() for text in texts)

    def read_relation(self, description: str) -> FreeTextRelation:
        query = _query(description)
        distance = [np.linalg.norm(_query(relation.description) - query) for relation in RELATIONS]
        return FreeTextRelation(
            description,
            query,
            np.eye(DIM, dtype=np.float32),
            tuple(sorted(range(1, len(RELATIONS)), key=lambda position: distance[position])),
            2 * query,
            FreeTextBias(np.float32(0.3) * query, 0.4, DIRECTION),
            TEXT_SHARE,
            unit_tokens=True,
        )


def _query(description: str) -> ndarray:
    words = [drawn(word) for word in description.lower().split()]
    return np.asarray(np.mean(words, axis=0, dtype=np.float32))


def _colour(picture: Image.Image) -> tuple[int, ...]:
    pixel = picture.getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return pixel


def _rows(words: object) -> TokenRows:
    items = [[(1 + len(word) % 3) * drawn(word) for word in item] for item in words]  # type: ignore[attr-defined]
    starts = np.cumsum([0, *map(len, items)])
    states = [token for item in items for token in item]
    return TokenRows(np.asarray(states, np.float16).reshape(-1, DIM), starts)


def make(folder: Path, items: Sequence[Item], **options: object) -> Index:
    write_prepared(folder / "prepared", items)
    write_checkpoint(folder / "checkpoint")
    config = BuildConfig.model_validate(
        {
            "checkpoint": folder / "checkpoint",
            "prepared": folder / "prepared",
            "out": folder / "index",
            "token_store": True,
            **options,
        }
    )
    build(config, TokenEncoder(), Checkpoint.open(config.checkpoint), Prepared.open(config.prepared))
    return Index.open(config.out)


def item(number: int, seed: int | None = None) -> Item:
    """Return an item of one of sixty families; items of a family share three of their four words."""
    seed = number if seed is None else seed
    family, own = np.random.default_rng(seed % 60), np.random.default_rng(seed)
    words = " ".join([*family.choice(WORDS, 3, replace=False), own.choice(WORDS)])
    return Item(f"i{number}", words, "", (words.split()[0],), words, f"pictures/{number}.png", {"n": number})


def changed(number: int, seed: int, tokens: bool = True) -> Change:
    made = item(number, seed)
    change = put(made, png(seed))
    encoding = TokenEncoder().read_items([made.text], [picture(seed)], tokens=True)()
    vectors = np.stack([encoding.view(view)[0] for view in View]).astype(np.float16)
    return Change.put(made, vectors, change.picture, encoding.tokens if tokens else None)


def picture(seed: int) -> Image.Image:
    return Image.new("RGB", (8, 8), tuple(np.random.default_rng(seed).integers(0, 256, 3).tolist()))


def png(seed: int) -> bytes:
    content = BytesIO()
    picture(seed).save(content, "PNG")
    return content.getvalue()


def brute(
    index: Index, relation: FreeTextRelation, item_id: str, similarity: Similarity
) -> list[tuple[str, float]]:
    """Recompute all tokens and return every other item and its score, best first; ties are in catalogue order."""
    snapshot = index.snapshot
    items = [one for _, one in snapshot.page(0, 100_000)]
    pictures = []
    for one in items:
        content = index.picture(one.item_id)[1]
        assert isinstance(content, Path | bytes)
        source = BytesIO(content) if isinstance(content, bytes) else content
        pictures.append(Image.open(source).convert("RGB"))
    tokens = TokenEncoder().read_items([one.text for one in items], pictures, tokens=True)().tokens
    assert tokens is not None
    query_view, target_view = similarity.views
    every = np.arange(len(items))
    queries, targets = relation.view(tokens, query_view, every), relation.view(tokens, target_view, every)
    own = [one.item_id for one in items].index(item_id)
    scores = cosines(targets, queries[own]).tolist()
    order = sorted((row for row in every.tolist() if row != own), key=lambda row: (-scores[row], row))
    return [(items[row].item_id, scores[row]) for row in order]


def answers(hits: Sequence[Hit]) -> list[tuple[str, float]]:
    return [(hit.item.item_id, hit.score) for hit in hits]


UNKNOWN = "w3 w7 worn by sailors"


@pytest.mark.parametrize("similarity", Similarity)
def test_searches_small_catalogue_exactly(similarity: Similarity, tmp_path: Path) -> None:
    index = make(tmp_path, ITEMS)
    relation = TokenEncoder().read_relation(UNKNOWN)
    for item_id in ("cot", "twin-2", "a/b?c#d e"):
        expected = brute(index, relation, item_id, similarity)
        for k in (1, 5, 100):
            assert answers(index.reader().neighbours(item_id, relation, similarity, k)) == expected[:k]
    index.close()


def test_rejects_free_text_relation_without_tokens(index: Index) -> None:
    with pytest.raises(NoTokensError, match=r"stores no tokens.*rebuild the index with --token-store"):
        index.reader().neighbours("cot", TokenEncoder().read_relation(UNKNOWN), Similarity.AVG, 3)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return make(tmp_path_factory.mktemp("many"), [item(number) for number in range(900)])


@pytest.fixture
def short_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the limits so that a search among 900 items needs low-rank estimates."""
    monkeypatch.setattr(free_text_search, "SCORE_ALL_UP_TO", 100)
    monkeypatch.setattr(FreeTextReport, "candidates_for", lambda self, k: max(5 * k, 50))


@pytest.mark.usefixtures("short_lists")
@pytest.mark.parametrize("similarity", Similarity)
def test_searches_large_catalogue_with_high_recall_and_exact_scores(
    similarity: Similarity, many: Index
) -> None:
    relation = TokenEncoder().read_relation(UNKNOWN)
    found = 0
    for number in range(20):
        expected = dict(brute(many, relation, f"i{number}", similarity))
        hits = many.reader().neighbours(f"i{number}", relation, similarity, 10)
        assert len({hit.item.item_id for hit in hits}) == 10
        for hit in hits:
            assert hit.score == pytest.approx(expected[hit.item.item_id], abs=1e-6)
        tenth = sorted(expected.values(), reverse=True)[9]
        found += sum(hit.score >= tenth - 1e-6 for hit in hits)
    assert found / 200 >= 0.95


@pytest.mark.usefixtures("short_lists")
def test_search_reads_tokens_of_candidates_only(many: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    view = FreeTextRelation.view

    def counted(self: FreeTextRelation, tokens: ItemTokens, of: View, rows: ndarray) -> ndarray:
        looked.append(len(rows))
        return view(self, tokens, of, rows)

    monkeypatch.setattr(FreeTextRelation, "view", counted)
    many.reader().neighbours("i5", TokenEncoder().read_relation(UNKNOWN), Similarity.AVG, 10)
    assert looked == [1, 50]


@pytest.mark.usefixtures("short_lists")
def test_search_respects_filter(many: Index) -> None:
    relation = TokenEncoder().read_relation(UNKNOWN)
    everything = answers(many.reader().neighbours("i5", relation, Similarity.AVG, 5))
    without = Selection(exclude=frozenset(item_id for item_id, _ in everything))
    assert (
        not dict(everything).keys()
        & dict(answers(many.reader().neighbours("i5", relation, Similarity.AVG, 5, without))).keys()
    )
    half = Selection(where={"n": Condition(least=450)})
    found = answers(many.reader().neighbours("i5", relation, Similarity.AVG, 10, half))
    expected = [one for one in brute(many, relation, "i5", Similarity.AVG) if int(one[0][1:]) >= 450]
    assert all(int(item_id[1:]) >= 450 for item_id, _ in found)
    assert len(set(found) & set(expected[:10])) >= 8
    asked = Question(KnownItems(("i5",)), (Weighted(relation),), Similarity.AVG, 10, selection=half)
    assert many.reader().retrieve(asked).filter_use == (450 / 900, ("estimates",))
    few = Selection(where={"n": Condition(least=850)})
    asked = replace(asked, selection=few)
    assert many.reader().retrieve(asked).filter_use == (50 / 900, ("scan",))
    assert (
        answers(many.reader().neighbours("i5", relation, Similarity.AVG, 10, few))
        == [one for one in brute(many, relation, "i5", Similarity.AVG) if int(one[0][1:]) >= 850][:10]
    )


def store_of(index: Index) -> TokenStore:
    store = index.snapshot.generation.tokens
    assert store is not None
    return store


@pytest.fixture
def earlier_store(many: Index, tmp_path: Path) -> TokenStore:
    """Return the tokens of an index of 900 items, with the low-rank files of earlier versions."""
    folder = tmp_path / "tokens"
    shutil.copytree(many.snapshot.generation.path / "tokens", folder)
    for modality in ("text", "image"):
        states = np.load(folder / f"{modality}.npy").astype(np.float32)
        np.save(folder / f"{modality}.sketch.npy", states @ np.load(folder / f"{modality}.basis.npy"))
        for name in ("codes", "scale", "length"):
            (folder / f"{modality}.{name}.npy").unlink()
    for name in ("report.json", "probes.safetensors"):
        (folder / name).unlink()
    return TokenStore(folder)


@pytest.mark.parametrize("strength", [1.0, 100.0])
def test_estimates_from_all_components_equal_exact_scores(
    strength: float, many: Index, earlier_store: TokenStore
) -> None:
    """The projection keeps all 16 components; at strength 100, exp of the relevance would overflow."""
    plain = TokenEncoder().read_relation(UNKNOWN)
    relation = replace(plain, query=strength * plain.query)
    every = np.arange(900)
    for view in View:
        vectors = many.snapshot.vectors(relation, view, every.tolist())
        found = earlier_store.estimates(relation, view).best(vectors[7], 900)
        assert sorted(found.rows) == every.tolist()
        np.testing.assert_allclose(found.scores, vectors[found.rows] @ vectors[7], atol=2e-3)
        assert earlier_store.estimates(relation, view) is earlier_store.estimates(relation, view)


def test_estimates_from_codes_are_near_exact_scores(many: Index) -> None:
    relation = TokenEncoder().read_relation(UNKNOWN)
    for view in View:
        vectors = many.snapshot.vectors(relation, view, range(900))
        found = store_of(many).estimates(relation, view).best(vectors[7], 900)
        np.testing.assert_allclose(found.scores, vectors[found.rows] @ vectors[7], atol=0.02)


@pytest.mark.usefixtures("short_lists")
def test_files_of_earlier_versions_give_the_same_results(many: Index, earlier_store: TokenStore) -> None:
    relation = TokenEncoder().read_relation(UNKNOWN)
    earlier = replace(many.snapshot, generation=replace(many.snapshot.generation, tokens=earlier_store))
    half = np.arange(900) % 2 == 0
    for view, allowed in product(View, (None, half)):
        query = many.snapshot.vectors(relation, view, [5])[0]
        found, before = (
            FreeTextSearch(snapshot, relation, view, query, allowed, frozenset({5})).best(10)
            for snapshot in (many.snapshot, earlier)
        )
        np.testing.assert_allclose(found.scores, before.scores, atol=1e-6)
        assert 5 not in found.rows
        assert allowed is None or allowed[found.rows].all()


@pytest.mark.usefixtures("short_lists")
def test_scores_every_item_if_estimates_find_too_few(many: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FreeTextReport, "candidates_for", lambda self, k: None)
    monkeypatch.setattr(TokenStore, "estimates", lambda *_: pytest.fail("estimates were used"))
    relation = TokenEncoder().read_relation(UNKNOWN)
    expected = brute(many, relation, "i7", Similarity.AVG)[:10]
    assert answers(many.reader().neighbours("i7", relation, Similarity.AVG, 10)) == expected


def test_build_reports_what_searches_find(many: Index) -> None:
    report = store_of(many).report
    assert (report.items, report.candidates) == (900, 80)
    assert report.overlap_at_10 is not None
    assert report.overlap_at_10 >= 0.95
    said = stats(StatsConfig(index=many.snapshot.generation.path.parent))
    line = f"80 candidates, overlap@10 {report.overlap_at_10:.4f}, measured with 900 items; 16 components"
    assert line in said


def test_rejects_item_without_tokens(tmp_path: Path) -> None:
    index = make(tmp_path, ITEMS)
    with pytest.raises(
        InputError, match="Item 'i7' has no tokens, but this index stores the tokens of every item"
    ):
        index.apply([changed(7, 7, tokens=False)])
    assert "i7" not in index.snapshot
    index.close()


def test_drops_tokens_if_index_does_not_store_them(shop: FakeShop, tmp_path: Path) -> None:
    index = Index.open(copied(shop, tmp_path))
    index.apply([changed(7, 7)])
    assert index.snapshot.overlay.entries[0].change.tokens is None
    index.close()


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 15), st.integers(0, 40)),
            st.tuples(st.just("drop"), st.integers(0, 15), st.just(0)),
            st.tuples(st.sampled_from(["compact", "reopen"]), st.just(0), st.just(0)),
        ),
        max_size=12,
    )
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_matches_brute_force_after_random_changes(
    steps: list[tuple[str, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("live")
    index = make(folder, ITEMS)
    relation = TokenEncoder().read_relation(UNKNOWN)
    for step, number, seed in [*steps, ("reopen", 0, 0)]:
        match step:
            case "put":
                index.apply([changed(number, seed)])
            case "drop":
                index.apply([Change(f"i{number}"), Change(ITEMS[number % 11].item_id)])
            case "compact":
                index.compact()
            case _:
                index.close()
                index = Index.open(folder / "index")
    for similarity in (Similarity.AVG, Similarity.TI):
        expected = brute(index, relation, "bib", similarity)
        assert answers(index.reader().neighbours("bib", relation, similarity, 100)) == expected
    index.close()


@pytest.mark.usefixtures("short_lists")
def test_finds_added_items_but_not_deleted_items(tmp_path: Path) -> None:
    index = make(tmp_path, [item(number) for number in range(900)])
    relation = TokenEncoder().read_relation(UNKNOWN)
    best = answers(index.reader().neighbours("i5", relation, Similarity.AVG, 3))
    others = [changed(3_000 + seed, seed) for seed in range(100, 180)]
    index.apply([Change(best[0][0]), *others, changed(2_000, 5)])  # same text as item 5
    again = answers(index.reader().neighbours("i5", relation, Similarity.TT, 3))
    assert again[0][0] == "i2000"
    assert again[0][1] == pytest.approx(1, abs=1e-3)
    index.compact()
    after = answers(index.reader().neighbours("i5", relation, Similarity.TT, 3))
    assert after[0] == again[0]
    assert best[0][0] not in dict(answers(index.reader().neighbours("i5", relation, Similarity.AVG, 10)))
    index.close()


def test_finds_k_items_if_all_indexed_relations_return_the_same_new_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free_text_search, "SCORE_ALL_UP_TO", 1)
    monkeypatch.setattr(FreeTextReport, "candidates_for", lambda self, k: k)
    index = make(tmp_path, ITEMS)
    index.apply([changed(number, number) for number in range(100, 180)])
    relation = TokenEncoder().read_relation(UNKNOWN)
    assert len(index.reader().neighbours("bib", relation, Similarity.AVG, 60)) == 60
    index.close()

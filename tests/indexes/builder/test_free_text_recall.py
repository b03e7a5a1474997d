"""Measurement of free-text searches when tokens are written: components, candidates and the report."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexes.builder import free_text_recall
from indexes.builder.free_text_recall import MeasuredRelation, carry_report, write_report
from indexes.storage import estimates, low_rank_tokens, tokens
from indexes.storage.free_text_report import FreeTextReport, read_probes
from indexes.storage.tokens import TokenStore, write_tokens
from model.embeddings.encoding import ItemTokens, TokenRows, unit_rows
from model.embeddings.free_text import FreeTextRelation
from model.errors import ArtifactError
from model.similarity import Similarity, View

DIM = 24


def item_tokens(items: int, spread: float = 0.05) -> ItemTokens:
    """Return tokens whose components get shorter; a great `spread` makes all components matter."""
    draw = np.random.default_rng(1)
    scale = np.geomspace(1, spread, DIM)

    def rows(least: int) -> TokenRows:
        counts = draw.integers(least, 6, items)
        states = draw.standard_normal((counts.sum(), DIM)) * scale
        return TokenRows(states.astype(np.float16), np.append(0, np.cumsum(counts)))

    return ItemTokens(rows(1), rows(0))  # some items have no picture


def relation(number: int) -> FreeTextRelation:
    draw = np.random.default_rng([2, number])
    output = np.linalg.qr(draw.standard_normal((DIM, DIM)))[0].astype(np.float32)
    query = draw.standard_normal(DIM).astype(np.float32)
    return FreeTextRelation(
        f"relation {number}", query, output, (2, 1), query, text_share=0.6, unit_tokens=True
    )


PROBES = [relation(0), relation(1)]


def written(folder: Path, items: int = 700, spread: float = 0.05) -> Path:
    write_tokens(folder, DIM, [item_tokens(items, spread)])
    return folder


def best_rows(store: TokenStore, asked: FreeTextRelation, view: View, query: np.ndarray, k: int) -> set[int]:
    scores = asked.view(store.tokens, view, np.arange(len(store.tokens.text))) @ query
    return set(np.argsort(-scores, kind="stable")[:k].tolist())


def test_report_gives_share_that_brute_force_confirms(tmp_path: Path) -> None:
    folder = written(tmp_path / "tokens")
    write_report(folder, PROBES, 0.95)
    store = TokenStore(folder)
    report = store.report
    assert (report.items, report.probes, report.candidates) == (700, 2, 80)
    assert report.overlap_at_10 is not None
    assert report.overlap_at_10 >= 0.95
    measured = MeasuredRelation.of(store, PROBES[1])
    shares = measured.found_shares(store, [80])[Similarity.TI]
    for place, row in enumerate(measured.rows[:5]):
        query = measured.queries[View.TEXT][place]
        best = best_rows(store, PROBES[1], View.IMAGE, query, 11) - {row}
        likely = set(store.estimates(PROBES[1], View.IMAGE).best(query, 81).rows.tolist()) - {row}
        assert shares[place, 0] == pytest.approx(len(best & likely) / 10, abs=0.101)


def test_probes_survive_writing(tmp_path: Path) -> None:
    folder = written(tmp_path / "tokens")
    write_report(folder, PROBES, 0.95)
    for kept, given in zip(read_probes(folder), PROBES, strict=True):
        np.testing.assert_array_equal(kept.query, given.query)
        np.testing.assert_array_equal(kept.output, given.output)
        assert (kept.text_share, kept.unit_tokens, kept.nearest) == (0.6, True, (2, 1))


def test_projection_gets_more_components_if_few_miss_the_minimum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free_text_recall, "COMPONENTS", (1, 2, 24))
    monkeypatch.setattr(tokens, "COMPONENTS", (1, 2, 24))
    monkeypatch.setattr(free_text_recall, "MAX_CANDIDATE_BYTES", 1)
    folder = written(tmp_path / "tokens", spread=1.0)
    assert TokenStore(folder).components == 1
    write_report(folder, PROBES, 0.95)
    assert TokenStore(folder).components == 24
    assert TokenStore(folder).report.candidates == 80


def test_more_candidates_are_preferred_while_their_tokens_are_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free_text_recall, "COMPONENTS", (2, 24))
    monkeypatch.setattr(tokens, "COMPONENTS", (2, 24))
    folder = written(tmp_path / "tokens", items=2_000, spread=0.4)
    write_report(folder, PROBES, 0.6)
    report = TokenStore(folder).report
    assert TokenStore(folder).components == 2
    assert report.candidates is not None
    assert report.candidates > 80


def test_report_asks_for_all_items_if_no_number_of_candidates_suffices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free_text_recall, "COMPONENTS", (1,))
    monkeypatch.setattr(tokens, "COMPONENTS", (1,))
    folder = written(tmp_path / "tokens", spread=1.0)
    write_report(folder, PROBES, 0.999)
    report = TokenStore(folder).report
    assert report.candidates is None
    assert report.candidates_for(10) is None
    assert report.overlap_at_10 is not None
    assert report.overlap_at_10 < 0.999


def test_few_items_are_not_measured(tmp_path: Path) -> None:
    folder = written(tmp_path / "tokens", items=60)
    write_report(folder, PROBES, 0.95)
    assert TokenStore(folder).report == FreeTextReport(items=60)


@pytest.mark.parametrize(("items", "measured_with"), [(720, 700), (650, 700), (800, 800), (500, 500)])
def test_compaction_measures_again_if_catalogue_grew_or_shrank(
    items: int, measured_with: int, tmp_path: Path
) -> None:
    old = written(tmp_path / "old")
    write_report(old, PROBES, 0.95)
    new = written(tmp_path / "new", items)
    carry_report(new, old, 0.95)
    store = TokenStore(new)
    assert (store.report.items, store.report.probes) == (measured_with, 2)
    assert len(read_probes(new)) == 2


def test_compaction_keeps_components_of_an_index_without_report(tmp_path: Path) -> None:
    old, new = written(tmp_path / "old"), written(tmp_path / "new")
    tokens.write_projections(old, 20)
    carry_report(new, old, 0.95)
    store = TokenStore(new)
    assert store.components == 20
    assert store.report == FreeTextReport()
    assert store.description == "80 candidates, not measured; 20 components"


@pytest.mark.parametrize(("k", "candidates"), [(1, 120), (10, 120), (11, 132), (100, 1200)])
def test_candidates_grow_with_results(k: int, candidates: int) -> None:
    assert FreeTextReport(candidates=120).candidates_for(k) == candidates


def test_projections_and_estimates_do_not_depend_on_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = written(tmp_path / "whole")
    monkeypatch.setattr(low_rank_tokens, "TOKENS_PER_CHUNK", 64)
    parts = written(tmp_path / "parts")
    for name in ("text.codes.npy", "image.codes.npy", "text.length.npy"):
        np.testing.assert_array_equal(np.load(whole / name), np.load(parts / name))
    query = unit_rows(np.random.default_rng(3).standard_normal((1, DIM)), 1e-12)[0]
    expected = TokenStore(whole).estimates(PROBES[0], View.AVERAGE).best(query, 700)
    monkeypatch.setattr(estimates, "TOKENS_PER_PART", 50)
    found = TokenStore(parts).estimates(PROBES[0], View.AVERAGE).best(query, 700)
    by_row = np.argsort(found.rows), np.argsort(expected.rows)
    np.testing.assert_allclose(found.scores[by_row[0]], expected.scores[by_row[1]], atol=0.01)


def test_measurement_does_not_depend_on_the_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = TokenStore(written(tmp_path / "tokens"))
    measured = MeasuredRelation.of(store, PROBES[0])
    for similarity in Similarity:
        query_view, target = similarity.views
        every = PROBES[0].view(store.tokens, target, np.arange(700))
        for place, row in enumerate(measured.rows):
            scores = np.delete(every @ measured.queries[query_view][place], row)
            assert measured.tenth[similarity][place] == pytest.approx(np.sort(scores)[-10], abs=1e-6)
    monkeypatch.setattr(free_text_recall, "FLOAT32_CHUNK_ITEMS", 7)  # fewer than the ten best
    again = MeasuredRelation.of(store, PROBES[0])
    for similarity in Similarity:
        np.testing.assert_allclose(again.tenth[similarity], measured.tenth[similarity], atol=1e-6)


def test_estimates_are_kept_as_far_as_they_fit(tmp_path: Path) -> None:
    folder = written(tmp_path / "tokens")
    size = TokenStore(folder).estimates(PROBES[0], View.TEXT).nbytes
    assert size == 2 * 700 * 16  # 16 components of two bytes
    store = TokenStore(folder, 3 * size)
    first = store.estimates(PROBES[0], View.TEXT)
    second = store.estimates(PROBES[1], View.TEXT)
    assert store.estimates(PROBES[0], View.TEXT) is first  # now the last one that was used
    store.estimates(PROBES[0], View.AVERAGE)
    store.estimates(replace(PROBES[0]), View.TEXT)
    assert store.estimates(PROBES[1], View.TEXT) is not second
    store = TokenStore(folder, 0)
    last = store.estimates(PROBES[1], View.AVERAGE)
    assert store.estimates(PROBES[1], View.AVERAGE) is last


@pytest.mark.parametrize("name", ["text.codes.npy", "image.scale.npy", "text.length.npy", "image.basis.npy"])
def test_names_projection_that_does_not_fit_its_tokens(name: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "tokens")
    array = np.load(folder / name)
    np.save(folder / name, array[:-1])
    with pytest.raises(ArtifactError, match=r"basis\.npy.*do not belong to the tokens"):
        TokenStore(folder)

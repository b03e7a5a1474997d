"""Tests that every benchmark runs and prints its figures; speed is not checked."""

import json
from pathlib import Path
from shutil import copytree
from types import ModuleType

import numpy as np
import pytest
import torch

from benchmarks import (
    build,
    catalogue,
    downloads,
    encode,
    journal,
    live,
    loss,
    new_items,
    overload,
    prepare,
    search,
    service,
    train,
    words,
)
from benchmarks.rig.embeddings import Embeddings
from benchmarks.rig.filters import FILTERS, FilterCase, FilteredItems
from benchmarks.rig.measurement import Timings, interleave, peak_memory
from benchmarks.rig.relation_vectors import RelationVectors
from benchmarks.rig.vit_b_32 import END, START, make_items, make_network, make_texts
from benchmarks.scale import __main__ as scale
from benchmarks.scale import one_machine
from benchmarks.scale.sizing import vectors_on_disk
from benchmarks.train import bf16_peak
from indexes.storage.table_maker import ANSWERS_PER_ITEM, ENTRY
from indexes.vectors.gpu_vectors import Cards
from model.similarity import View
from tests.conftest import Road
from tests.indexes.vectors.stand_in_card import StandInCard
from tests.model.network.inference.test_cuda_graphs import Repeater

KEYS = {
    "encode": {
        "parameters",
        "ratio_10",
        "ratio_100",
        "speedup_vs_transformers",
        "min_cosine",
        "speedups",
        "min_cosines",
    },
    "loss": {"speedup", "memory_ratio"},
    "train": {"step_ratio", "step_ratio_padded"},
    "build": {
        "items_per_s",
        "share_of_forward_rate",
        "share_with_tokens",
        "share_from_cache",
        "decoded_per_s",
        "workers",
    },
    "new_items": {"new_item_ms", "new_item_over_encoder", "embeddings_ms", "embeddings_over_encoder"},
    "catalogue": {"speedup_vs_sorting", "queries", "seconds", "peak_gb"},
}


@pytest.mark.parametrize("benchmark", [encode, loss, train, build, new_items, catalogue], ids=list(KEYS))
def test_prints_figures_as_json_object_on_last_line(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = benchmark.__name__.removeprefix("benchmarks.")
    monkeypatch.setattr("sys.argv", [name, "--quick"])
    benchmark.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures.keys() - {"cuda"} == KEYS[name]
    by_engine = {"speedups", "min_cosines"} & KEYS[name]
    values = [figures[key] for key in KEYS[name] - by_engine]
    values += [value for key in by_engine for value in figures[key].values()]
    assert all(value > 0 for value in values)
    assert figures.get("memory_ratio", 10.0) > 5
    assert figures.get("min_cosine", 1.0) > 0.999


@torch.inference_mode()
def test_encode_compares_recorded_calls() -> None:
    network = make_network(quick=True).eval()
    figures = encode.cost_with_graphs(network, make_items(network, 2), 2, Repeater())
    assert figures.keys() == {
        f"{key}_{count}" for key in ("graph_ratio", "graph_ratio_to_calls") for count in (10, 100)
    }
    assert all(ratio > 0 for ratio in figures.values())


def test_one_machine_builds_and_serves_vectors_that_depend_on_the_relation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["one_machine", "--quick"])
    one_machine.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["kind"], figures["items"], figures["relations"]) == ("ivf-rabitq", 12_000, 2)
    assert 0.1 < figures["same_under_another_relation"] < 0.9
    for key in ("recall_at_build", "recall_of_new_items"):
        assert set(figures[key]) == {"text", "image", "average"}
        assert all(float(told.split()[0]) > 0.9 for told in figures[key].values())
    for count in (1, 2):
        served = figures[f"servers_{count}"]
        assert {len(served[name]) for name in ("rss", "pss", "private")} == {count}
        assert 0 < served["p50_ms"] <= served["p99_ms"]


@pytest.mark.parametrize("view", list(View))
def test_relation_vectors_depend_on_relation_and_view_but_not_on_the_chunk(view: View) -> None:
    source = RelationVectors(200, 16)
    whole = np.concatenate(list(source.chunks(0, view)))
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(source.vectors(0, view, slice(150, 160)), whole[150:160], atol=1e-6)
    others = [(1, view), *((0, other) for other in View if other != view)]
    for relation, other in others:
        cosines = np.einsum("nd,nd->n", whole, source.vectors(relation, other, slice(0, 200)))
        assert 0.3 < cosines.mean() < 0.99


def test_preparation_benchmark_finds_the_planted_groups(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["prepare", "--quick"])
    prepare.main()
    *table, last = capsys.readouterr().out.splitlines()
    figures = json.loads(last)
    assert figures.keys() == {"rows", "seconds", "peak_gib", "exponent"}
    assert 40_000 < figures["rows"] < 60_000
    assert min(figures["seconds"], figures["peak_gib"]) > 0
    planted = [float(line.split("│")[-2].strip(" %")) for line in table if line.startswith("│")]
    assert min(planted) > 90


def test_service_benchmark_reports_ratios_to_canned_response(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["service", "--quick"])
    monkeypatch.setattr(service, "CONCURRENCIES", (4, 16))  # few enough that the server rejects none
    service.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures.keys() == {
        "throughput_ratio_16", "throughput_ratio_64", "p99_ratio_16", "p99_ratio_64", "live_ratio_16", "recall_at_10",
        "table_ratio_16", "cpu_us_16",
    }  # fmt: skip
    assert figures["recall_at_10"] == 1.0
    others, cpu_us = figures.pop("table_ratio_16"), figures.pop("cpu_us_16")
    assert cpu_us.keys() - others.keys() == {"table"}
    assert all(value > 0 for value in (*figures.values(), *others.values()))
    assert all(value >= 0 for value in cpu_us.values())  # the clock of the processor time is coarse


def test_service_benchmark_compares_numbers_of_workers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--workers", "2", "--clients", "2", "--rounds", "1", "--seconds", "0.2"]
    monkeypatch.setattr("sys.argv", ["service", "--quick", *options])
    service.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = {(row["request"], row["workers"]): row for row in figures["rows"]}
    assert [*rows] == [(kind, count) for kind in ("id", "filtered", "text") for count in (1, 2)]
    for (kind, count), row in rows.items():
        assert row["ratio"] == pytest.approx(row["per_s"] / rows[kind, 1]["per_s"])
        assert row["ratio_per_worker"] == pytest.approx(row["ratio"] / count)
        assert 0 < row["p50_ms"] <= row["p99_ms"]


def test_overloaded_service_rejects_requests_with_retry_after(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["overload", "--quick"])
    overload.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["refusals_with_retry_after"] == (1.0 if figures["refused"] else 0.0)
    assert figures["good_share_of_capacity"] > 0


def test_free_text_benchmark_measures_every_similarity(
    road: Road, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["words", "--quick"])
    monkeypatch.setattr(words, "make_all", lambda options: copytree(road.folder, options.out))
    words.main()
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [row["similarity"] for row in rows] == ["TT", "II", "TI", "IT", "AVG"]
    assert {row["items"] for row in rows} == {336}
    assert {row["overlap_at_10"] for row in rows} == {1.0}  # up to 500 items, the search scores all items


def test_words_on_synthetic_items(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--items", "600", "--dim", "32", "--queries", "3", "--relations", "1", "--probes", "1"]
    monkeypatch.setattr("sys.argv", ["words", *options])
    words.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["items"], figures["dim"], figures["candidates"]) == (600, 32, 80)
    assert min(figures["overlap_at_10"].values()) >= 0.9


def test_downloads_benchmark_names_every_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["downloads", "--quick"])
    downloads.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["all_faults_named"] is True
    assert (figures["pictures"], figures["failures"]) == (300, 9)
    assert all(figures[name] > 0 for name in ("rcml_per_s", "httpx_per_s", "httpcore_per_s", "ratio"))


def test_journal_benchmark_measures_increasing_numbers_of_writers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["journal", "--quick"])
    journal.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["writers"] for row in figures["rows"]] == [1, 8, 64]
    assert all(row["per_s"] > 0 and row["ratio"] > 0 for row in figures["rows"])


def test_search_benchmark_compares_filters_that_allow_few_to_all_items(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["search", "--quick", "--filters", "--kinds", "hnsw"])
    search.main()
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    asked = [(case.share, case.kind, case.place) for case in FilterCase.every()]
    assert [(row["share"], row["filter"], row["place"]) for row in rows] == [*asked, (1.0, "all", "")]
    for row in rows:
        assert row["allowed"] == pytest.approx(12_000 * row["share"], rel=0.03, abs=1)
        assert sum(row["methods"].values()) == 20
        assert row["recall_at_10"] == 1.0 if row["methods"].keys() == {"scan"} else row["recall_at_10"] > 0.95
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert 0 < row["faiss_p50_ms"] <= row["faiss_p99_ms"]
    assert {method for row in rows for method in row["methods"]} == {"scan", "ann"}
    # The nearest items are among the allowed ones, or they are not.
    wide = {row["place"]: row for row in rows if (row["share"], row["filter"]) == (0.5, "category")}
    assert wide["near"]["methods"] == {"ann": 20}
    assert wide["far"]["methods"] == {"scan": 20}
    assert wide["near"]["faiss_recall_at_10"] > wide["far"]["faiss_recall_at_10"]


def test_filters_of_the_search_benchmark_allow_what_is_near_or_far() -> None:
    embeddings = Embeddings(0, dim=32)
    vectors = np.concatenate([*embeddings.chunks(3_000)])
    items = FilteredItems(embeddings, 3_000)
    for query in embeddings.queries(5):
        cosines = vectors @ query
        for case in FilterCase.every():
            allowed = items.mask(case, query)
            wanted = round(3_000 * case.share)
            assert (
                allowed.sum() == wanted
                if case.kind == "range"
                else 0.9 * wanted - 1 <= allowed.sum() <= wanted
            )
            if 0.01 < case.share < 0.5 and case.kind != "range":
                nearer = cosines[allowed].mean() > cosines.mean()
                assert nearer == (case.place == "near")


def test_search_benchmark_compares_every_kind_and_filter_with_faiss(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = ["flat", "hnsw", "ivf-rabitq"]
    monkeypatch.setattr("sys.argv", ["search", "--quick", "--kinds", *kinds])
    search.main()
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [(row["kind"], row["filter"]) for row in rows] == [
        (kind, name) for kind in kinds for name in FILTERS
    ]
    for row in rows:
        exact = row["kind"] == "flat" or row["filter"] != "none"
        assert row["recall_at_10"] == 1.0 if exact else row["recall_at_10"] > 0.8
        assert row["ratio_to_faiss"] == pytest.approx(row["p50_ms"] / row["faiss_p50_ms"], rel=0.01)
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["bytes_per_vector"] > (63 if row["kind"] == "flat" else 80)


def test_whole_index_is_built_opened_and_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    size = ["--whole", "400", "--relations", "3", "--dim", "16", "--folder", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["scale", *size])
    scale.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["items"] == 400
    assert figures["disk_vectors"] == pytest.approx(vectors_on_disk("flat", 400, 3, 16), rel=0.1)
    assert figures["disk_answers"] == pytest.approx(400 * 3 * ANSWERS_PER_ITEM * ENTRY.itemsize, rel=0.1)
    assert min(figures["search_cpu_ms"], figures["precomputed_cpu_ms"], figures["memory_opened"]) > 0
    assert list(tmp_path.iterdir()) == []


def test_scale_benchmark_sizes_every_place_and_checks_its_formulas(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["scale", "--quick", "--items", "1000000", "100000000"])
    scale.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert all(0 <= one["residual"] < 0.3 for one in figures["fits"].values())
    for one in figures["checks"].values():
        assert one["bytes"] == pytest.approx(one["bytes_formula"], rel=0.25)
        assert one["build_s"] > 0
    rows = {(row["items"], row["place"]): row for row in figures["sizes"]}
    assert len(rows) == 6
    codes = rows[1_000_000, "ivf-rabitq files"]
    assert codes["memory"] == 8 * 2**30 + 3 * 10 * 1_000_000 * (512 // 8 + 40 + 72)
    # 100 times as many items need 100 times the disk, and 1,000 times the comparisons with cells.
    large = rows[100_000_000, "ivf-rabitq files (does not fit)"]
    assert large["disk"] == 100 * codes["disk"]
    assert 100 * codes["hours"] < large["hours"] < 1_000 * codes["hours"]
    assert large["queries_per_s"] == 4 * 50_000 / 320  # every vector comes from disk


def test_search_benchmark_measures_searches_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.search.GPU_ROUNDS", 3)  # the stand-in for a card takes long
    case = search.Case(tmp_path, "flat", 12_000, 1, 0, 32)
    search.build(case)
    assert search.on_gpu(case) is None or torch.cuda.is_available()
    figures = search.measure_on_gpu(case, Cards([StandInCard()], 1.0), 0.001)
    assert (figures["items"], figures["read_ms"], figures["found_on_gpu"]) == (12_000, 1.0, True)
    assert figures["device"].startswith("vectors of 1 relations on cuda:0 (")
    for name in ("one_query", "256_queries"):
        assert figures[f"{name}_ratio"] == pytest.approx(figures[f"{name}_p50_ms"]) != 0


def test_live_benchmark_measures_searches_while_index_changes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["live", "--quick", "--changes", "150"])
    live.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["changes"] > 150
    assert 0 < figures["apply_p50_ms"] <= figures["apply_p99_ms"]
    assert min(figures["seen_ms"], figures["seen_elsewhere_ms"]) > 0
    for row in figures["rows"]:
        assert row["ratio_p99"] == pytest.approx(row["live_p99_ms"] / row["quiet_p99_ms"])
        assert 0 < row["quiet_p50_ms"] <= row["quiet_p99_ms"]


def test_embeddings_do_not_depend_on_count_and_queries_are_near_items() -> None:
    embeddings = Embeddings(3, dim=32)
    few, many = (np.concatenate([*embeddings.chunks(items)]) for items in (100, 20_000))
    np.testing.assert_array_equal(few, many[:100])
    np.testing.assert_allclose(np.linalg.norm(many, axis=1), 1, atol=1e-6)
    assert (many[:100] != Embeddings(4, dim=32).chunk(0)[:100]).any()
    nearest = (embeddings.queries(50) @ many.T).max(axis=1)
    assert ((nearest > 0.6) & (nearest < 0.999)).all()


def test_ratio_is_median_over_rounds() -> None:
    timings = Timings({"ours": [2.0, 20.0, 3.0], "theirs": [1.0, 10.0, 1.0]})
    assert timings.ratio("ours", "theirs") == 2.0
    assert timings.median("ours") == 3.0
    assert timings.spread("theirs") == (1.0, 5.5)


def test_interleave_runs_every_variant_once_per_round_and_excludes_warmup() -> None:
    runs: list[str] = []
    timings = interleave({"a": lambda: runs.append("a"), "b": lambda: runs.append("b")}, rounds=3, warmup=2)
    assert [sorted(runs[start : start + 2]) for start in range(0, 10, 2)] == [["a", "b"]] * 5
    assert {side: len(seconds) for side, seconds in timings.seconds.items()} == {"a": 3, "b": 3}


def test_peak_memory_is_maximum_held_at_once_not_total_allocated() -> None:
    def call() -> None:
        for _ in range(3):
            torch.zeros(2**20, dtype=torch.uint8).add_(1)
        torch.zeros(2**18, dtype=torch.uint8)

    assert 2**20 <= peak_memory(call, torch.device("cpu")) < 1.01 * 2**20


def test_texts_have_start_and_end_tokens_and_padding_of_clip() -> None:
    texts = make_texts([3, 5], padded=6)
    assert texts.mask.sum(dim=1).tolist() == [3, 5]
    assert texts.ids[:, 0].tolist() == [START, START]
    assert texts.ids[0, 2:].tolist() == [END] * 4
    assert texts.ids[1, 4:].tolist() == [END] * 2


@pytest.mark.parametrize(
    ("card", "peak"), [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA L4", 121e12), ("GeForce", None)]
)
def test_finds_bf16_peak_by_card_name(card: str, peak: float | None) -> None:
    assert bf16_peak(card) == peak


def test_server_of_new_items_that_cannot_open_its_index_ends_the_benchmark(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="server process ended"),
        new_items.served(tmp_path / "missing", True, torch.device("cpu")),
    ):
        pass

"""Tests of the metrics and their labels; clients cannot create new label values."""

import time
from collections.abc import Callable, Iterator
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from indexes.index import Index
from model import __version__
from service.app import create_app
from service.settings import ServeConfig
from service.telemetry.prometheus import DURATION_BUCKETS_S, Metrics, Stage
from tests.indexes.changes import copied, made
from tests.indexes.fakes import ITEMS, FakeEncoder, FakeShop
from tests.service.conftest import served, wait_until_ready
from tests.service.engine.test_index_follower import eventually

Labels = frozenset[tuple[str, str]]
Samples = dict[str, dict[Labels, float]]


@pytest.fixture
def fresh(config: ServeConfig) -> Iterator[TestClient]:
    """Return a client of an application that has answered only readiness probes."""
    with served(config) as client:
        yield client


def read(text: str) -> Samples:
    """Return all samples by name and labels."""
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return samples


def scrape(client: TestClient) -> Samples:
    return read(client.get("/metrics").text)


def labelled(**labels: str) -> Labels:
    return frozenset(labels.items())


def test_counts_and_times_requests_by_route_method_and_status(fresh: TestClient) -> None:
    begun = time.perf_counter()
    for item in ("red-mug", "bib", "unicorn"):
        fresh.get(f"/items/{item}")
    taken = time.perf_counter() - begun
    samples = scrape(fresh)
    found = labelled(route="/items/{item_id}", method="GET", status="200")
    missed = labelled(route="/items/{item_id}", method="GET", status="404")
    assert samples["rcml_requests_total"][found] == 2
    assert samples["rcml_requests_total"][missed] == 1
    assert samples["rcml_request_duration_seconds_count"][found] == 2
    assert 0 < samples["rcml_request_duration_seconds_sum"][found] < taken


def test_ids_paths_and_odd_methods_create_no_labels(fresh: TestClient) -> None:
    for number in range(1000):
        fresh.get(f"/items/item-{number}" if number % 2 else f"/nowhere-{number}/{number}")
        if number % 100 == 0:
            fresh.request(f"ODD{number}", "/livez")
            fresh.get(f"/static/file-{number}.js")
    samples = scrape(fresh)
    assert {labels for labels in samples["rcml_requests_total"] if labelled(route="/readyz") - labels} == {
        labelled(route="/items/{item_id}", method="GET", status="404"),
        labelled(route="none", method="GET", status="404"),
        labelled(route="/livez", method="other", status="405"),
        labelled(route="/static/{path}", method="GET", status="404"),
    }
    assert set(samples["rcml_problems_total"]) == {
        labelled(kind=kind) for kind in ("unknown-item", "not-found", "method-not-allowed")
    } | ({labelled(kind="not-ready")} & set(samples["rcml_problems_total"]))
    assert samples["rcml_problems_total"][labelled(kind="unknown-item")] == 500


def test_reports_served_index_with_digests(fresh: TestClient) -> None:
    samples, ready = scrape(fresh), fresh.get("/readyz").json()
    assert samples["rcml_build_info"] == {labelled(version=__version__): 1}
    assert samples["rcml_index_info"] == {
        labelled(generation="generation-000001", digest=ready["index"], checkpoint=ready["checkpoint"]): 1
    }
    assert samples["rcml_items"] == {labelled(): len(ITEMS)}
    assert samples["rcml_relations"] == {labelled(): 4}
    assert samples["rcml_requests_in_flight"] == {labelled(): 1}
    assert samples["rcml_queue_length"] == {labelled(): 0}
    assert samples["process_resident_memory_bytes"][labelled()] > 1e6


def test_reports_new_generation_after_compaction(
    shop: FakeShop, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = copied(shop, tmp_path_factory.mktemp("live"))
    with served(ServeConfig(index=folder, compact_at=2)) as client:
        other = Index.open(folder)
        other.apply([made("new-lamp", 3)])
        eventually(lambda: scrape(client)["rcml_overlay_changes"] == {labelled(): 1})
        assert scrape(client)["rcml_items"] == {labelled(): len(ITEMS) + 1}
        other.apply([made("new-cot", 4)])
        other.close()
        eventually(lambda: scrape(client)["rcml_overlay_changes"] == {labelled(): 0})
        [told] = scrape(client)["rcml_index_info"]
        assert ("generation", "generation-000002") in told


def test_reports_build_but_no_index_metrics_before_index_is_open() -> None:
    samples = read(Metrics().exposition("")[0].decode())
    assert samples["rcml_build_info"] == {labelled(version=__version__): 1}
    assert "rcml_items" not in samples
    assert "rcml_index_info" not in samples


def test_all_stages_exist_from_start_and_are_timed_in_any_thread() -> None:
    metrics = Metrics()

    def work() -> None:
        with metrics.stage(Stage.SEARCH):
            time.sleep(0.002)

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    metrics.observe(Stage.DECODE, 0.3)
    samples = read(metrics.exposition("")[0].decode())
    counts = {
        dict(labels)["stage"]: count for labels, count in samples["rcml_stage_duration_seconds_count"].items()
    }
    assert counts == {stage: {"search": 8, "decode": 1}.get(stage, 0) for stage in Stage}
    assert samples["rcml_stage_duration_seconds_sum"][labelled(stage="search")] >= 8 * 0.002
    buckets = samples["rcml_stage_duration_seconds_bucket"]
    assert buckets[labelled(stage="decode", le="0.25")] == 0
    assert buckets[labelled(stage="decode", le="0.5")] == 1


def test_times_failed_stage_and_propagates_error() -> None:
    metrics = Metrics()
    with pytest.raises(ZeroDivisionError), metrics.stage(Stage.ENCODE):
        raise ZeroDivisionError
    samples = read(metrics.exposition("")[0].decode())
    assert samples["rcml_stage_duration_seconds_count"][labelled(stage="encode")] == 1


@given(st.lists(st.floats(0, 20), max_size=30))
def test_bucket_counts_durations_up_to_its_bound(seconds: list[float]) -> None:
    metrics = Metrics()
    for one in seconds:
        metrics.observe(Stage.SEARCH, one)
    buckets = read(metrics.exposition("")[0].decode())["rcml_stage_duration_seconds_bucket"]
    for bound in DURATION_BUCKETS_S:
        assert buckets[labelled(stage="search", le=str(bound))] == sum(one <= bound for one in seconds)


def test_reads_queue_length_at_scrape() -> None:
    metrics = Metrics()
    waiting = [1, 2, 3]
    metrics.read_engine(lambda: None, lambda: len(waiting))
    waiting.pop()
    assert read(metrics.exposition("")[0].decode())["rcml_queue_length"] == {labelled(): 2}


def test_reads_longest_call_of_the_network_at_scrape() -> None:
    metrics, longest = Metrics(), [0.25]
    metrics.read_engine(lambda: None, lambda: 0, lambda: max(longest))
    longest += [0.5, 0.125]
    assert read(metrics.exposition("")[0].decode())["rcml_network_longest_call_seconds"] == {labelled(): 0.5}


def test_applications_have_separate_metrics(config: ServeConfig, fresh: TestClient) -> None:
    with TestClient(create_app(config, lambda *_: FakeEncoder())) as other:
        wait_until_ready(other)
        other.get("/items")
        assert labelled(route="/items", method="GET", status="200") in scrape(other)["rcml_requests_total"]
    assert labelled(route="/items", method="GET", status="200") not in scrape(fresh)["rcml_requests_total"]


def test_returns_openmetrics_if_requested(fresh: TestClient) -> None:
    answer = fresh.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = parse_openmetrics(answer.text)  # type: ignore[no-untyped-call]
    names = {family.name for family in families}
    assert {"rcml_requests", "rcml_stage_duration_seconds", "rcml_build"} <= names


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text;version=abc", "text/plain;version=..", "\xe9", ""]
)
def test_malformed_accept_header_gets_plain_text(fresh: TestClient, accept: str) -> None:
    answer = fresh.get("/metrics", headers=[(b"accept", accept.encode("latin-1"))])
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize(
    ("ask", "kind"),
    [
        (lambda client: client.get("/items/unicorn"), "unknown-item"),
        (lambda client: client.post("/retrieve", json={}), "invalid-request"),
        (lambda client: client.get("/nowhere"), "not-found"),
    ],
)
def test_counts_problems_by_kind(fresh: TestClient, ask: Callable[[TestClient], object], kind: str) -> None:
    ask(fresh)
    assert scrape(fresh)["rcml_problems_total"][labelled(kind=kind)] == 1

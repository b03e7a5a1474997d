"""What is counted, under which labels, and that no client can make more of them."""

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
    """An application that has answered nothing but that it is ready."""
    with served(config) as client:
        yield client


def read(text: str) -> Samples:
    """All samples by their names and labels."""
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return samples


def scrape(client: TestClient) -> Samples:
    return read(client.get("/metrics").text)


def labelled(**labels: str) -> Labels:
    return frozenset(labels.items())


def test_requests_are_counted_and_timed_by_route_method_and_status(fresh: TestClient) -> None:
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


def test_a_thousand_ids_and_paths_and_odd_methods_make_no_label(fresh: TestClient) -> None:
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


def test_what_is_served_is_told_with_its_digests(fresh: TestClient) -> None:
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


def test_a_new_generation_takes_the_place_of_the_old(
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


def test_before_the_index_is_open_only_the_program_is_told() -> None:
    samples = read(Metrics().exposition("")[0].decode())
    assert samples["rcml_build_info"] == {labelled(version=__version__): 1}
    assert "rcml_items" not in samples
    assert "rcml_index_info" not in samples


def test_every_stage_is_there_from_the_start_and_is_timed_in_any_thread() -> None:
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


def test_a_stage_that_fails_is_timed_and_its_error_goes_on() -> None:
    metrics = Metrics()
    with pytest.raises(ZeroDivisionError), metrics.stage(Stage.ENCODE):
        raise ZeroDivisionError
    samples = read(metrics.exposition("")[0].decode())
    assert samples["rcml_stage_duration_seconds_count"][labelled(stage="encode")] == 1


@given(st.lists(st.floats(0, 20), max_size=30))
def test_a_bucket_counts_the_times_up_to_its_bound(seconds: list[float]) -> None:
    metrics = Metrics()
    for one in seconds:
        metrics.observe(Stage.SEARCH, one)
    buckets = read(metrics.exposition("")[0].decode())["rcml_stage_duration_seconds_bucket"]
    for bound in DURATION_BUCKETS_S:
        assert buckets[labelled(stage="search", le=str(bound))] == sum(one <= bound for one in seconds)


def test_the_queue_is_read_when_asked() -> None:
    metrics = Metrics()
    waiting = [1, 2, 3]
    metrics.read_engine(lambda: None, lambda: len(waiting))
    waiting.pop()
    assert read(metrics.exposition("")[0].decode())["rcml_queue_length"] == {labelled(): 2}


def test_two_applications_count_apart(config: ServeConfig, fresh: TestClient) -> None:
    with TestClient(create_app(config, lambda *_: FakeEncoder())) as other:
        wait_until_ready(other)
        other.get("/items")
        assert labelled(route="/items", method="GET", status="200") in scrape(other)["rcml_requests_total"]
    assert labelled(route="/items", method="GET", status="200") not in scrape(fresh)["rcml_requests_total"]


def test_openmetrics_is_given_to_whom_asks_for_it(fresh: TestClient) -> None:
    answer = fresh.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = parse_openmetrics(answer.text)  # type: ignore[no-untyped-call]
    names = {family.name for family in families}
    assert {"rcml_requests", "rcml_stage_duration_seconds", "rcml_build"} <= names


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text;version=abc", "text/plain;version=..", "\xe9", ""]
)
def test_an_accept_header_without_sense_gets_plain_text(fresh: TestClient, accept: str) -> None:
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
def test_refusals_are_counted_by_the_kind_of_problem(
    fresh: TestClient, ask: Callable[[TestClient], object], kind: str
) -> None:
    ask(fresh)
    assert scrape(fresh)["rcml_problems_total"][labelled(kind=kind)] == 1

"""The Grafana dashboard: its structure, its queries, and a Prometheus that answers them."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]

from service.settings import ServeConfig
from tests.indexes.fakes import FakeShop
from tests.service.servers import served_apart

from . import promql
from .programs import DEPLOY, free_port, listening, program, run

DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}

WITHOUT_EVENTS = {"Shadow run: queries", "Shadow run: overlap", "p99 by stage"}
"""Panels without values on a server without shadow runs, new items and searches."""


def written(expression: str) -> str:
    """Return a query with values for the variables of Grafana."""
    for name, value in {"$__rate_interval": "5s", "$job": ".+", "$instance": ".+"}.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def test_grafana_reads_every_field_that_is_written() -> None:
    """Read the dashboard with Grafana's own types and write it again: what they do not know would be lost."""
    models = pytest.importorskip("grafana_foundation_sdk.models.dashboard")
    plugins = pytest.importorskip("grafana_foundation_sdk.cog.plugins")
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder")
    plugins.register_default_plugins()
    again = json.loads(json.dumps(models.Dashboard.from_json(DASHBOARD), cls=encoder.JSONEncoder))
    assert sorted(lost(DASHBOARD, again)) == [
        "/id",
        "/templating/list/1/definition",
        "/templating/list/2/definition",
    ]


def lost(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of all values that differ or are missing in `after`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name, value in before.items():
            yield from lost(value, after.get(name), f"{path}/{name}") if name in after else [f"{path}/{name}"]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from lost(one, other, f"{path}/{place}")
    elif before != after:
        yield path


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panel_says_what_it_shows_in_which_unit(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert own.isdisjoint(cells), panel["title"]
        assert max(x for x, _ in own) < 24
        cells |= own


@pytest.mark.parametrize(("title", "expression"), QUERIES)
def test_query_reads_metrics_that_the_server_has(
    title: str, expression: str, metrics: set[str], label_values: dict[str, set[str]]
) -> None:
    assert promql.metrics(expression) - metrics == set()
    assert promql.unmatched(written(expression), {**label_values, "job": {".+"}}) == []


@pytest.mark.parametrize(("title", "expression"), QUERIES)
def test_query_follows_the_variables_and_the_scrape_interval(title: str, expression: str) -> None:
    selectors = re.findall(r"\{[^{}]*\}", expression)
    assert selectors
    assert all('job=~"$job", instance=~"$instance"' in selector for selector in selectors)
    assert set(re.findall(r"\[([^]]*)\]", expression)) <= {"$__rate_interval"}


def test_variables_are_data_source_job_and_instance() -> None:
    assert list(VARIABLES) == ["datasource", "job", "instance"]
    assert VARIABLES["instance"]["query"]["query"] == 'label_values(rcml_build_info{job=~"$job"}, instance)'


def test_promtool_accepts_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"panel{n}", "expr": written(query)} for n, (_, query) in enumerate(QUERIES)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(QUERIES)} rules found" in run("promtool", "check", "rules", path)


@pytest.fixture(scope="module")
def prometheus(shop: FakeShop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Run a server, and Prometheus that reads its metrics every second; yield the addresses of both."""
    program("prometheus")
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    with served_apart(ServeConfig(index=shop.index)) as server:
        configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        configuration["rule_files"] = [str(DEPLOY / "prometheus" / "rules.yml")]
        configuration["scrape_configs"][0]["static_configs"] = [{"targets": [server.removeprefix("http://")]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        words = [
            program("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with listening(words, port, folder / "log"):
            yield server, f"http://127.0.0.1:{port}"


def test_every_panel_shows_values_of_a_running_server(prometheus: tuple[str, str]) -> None:
    server, address = prometheus
    waiting = {title: query for title, query in QUERIES if title not in WITHOUT_EVENTS}
    with httpx.Client(timeout=60) as client:
        while waiting:
            asked = {"item_id": "cot", "relation": "gardeners", "k": 1}
            assert client.post(f"{server}/retrieve", json=asked).status_code == 200
            assert client.get(f"{server}/items/unicorn").status_code == 404
            assert client.get(f"{server}/readyz").status_code == 200
            time.sleep(0.2)
            for title in list(waiting):
                answer = client.get(
                    f"{address}/api/v1/query", params={"query": written(waiting[title])}
                ).json()
                assert answer["status"] == "success", (title, answer)
                values = [float(result["value"][1]) for result in answer["data"]["result"]]
                if values and all(value == value for value in values):  # not NaN
                    del waiting[title]
        rules = client.get(f"{address}/api/v1/rules").json()["data"]["groups"]
    assert {rule["health"] for group in rules for rule in group["rules"]} <= {"ok", "unknown"}

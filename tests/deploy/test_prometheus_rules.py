"""The rules for Prometheus: read by promtool, tested by it, and true to the metrics of the server."""

import re
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from service.settings import ServeConfig
from tests.docs.documents import ROOT, anchors

from . import promql
from .programs import DEPLOY, run

FOLDER = DEPLOY / "prometheus"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
TESTS: list[dict[str, Any]] = yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]


def named(rule: dict[str, Any]) -> str:
    return str(rule.get("alert") or rule.get("record"))


def test_promtool_accepts_rules_and_configuration() -> None:
    assert f"{len(RULES)} rules found" in run("promtool", "check", "rules", FOLDER / "rules.yml")
    run("promtool", "check", "config", FOLDER / "prometheus.yml")


def test_alerts_fire_when_they_should_and_only_then() -> None:
    assert "SUCCESS" in run("promtool", "test", "rules", FOLDER / "rules_test.yml")


def test_every_alert_is_tested_firing_and_silent() -> None:
    told = [told for test in TESTS for told in test.get("alert_rule_test", ())]
    firing = {one["alertname"] for one in told if one.get("exp_alerts")}
    silent = {one["alertname"] for one in told if not one.get("exp_alerts")}
    assert firing == silent == {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize("rule", RULES, ids=named)
def test_rule_reads_metrics_that_the_server_has(
    rule: dict[str, Any], metrics: set[str], label_values: dict[str, set[str]]
) -> None:
    assert promql.metrics(rule["expr"]) - metrics - RECORDED == set()
    assert promql.unmatched(rule["expr"], label_values) == []


@pytest.mark.parametrize("alert", ALERTS, ids=named)
def test_alert_has_severity_summary_and_a_section_that_says_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["annotations"]["summary"].endswith(".")
    document, _, anchor = alert["annotations"]["runbook"].partition("#")
    assert anchor == alert["alert"].lower()
    assert anchor in anchors(ROOT / document)


def test_threshold_of_uncompacted_changes_follows_from_the_default() -> None:
    [alert] = [alert for alert in ALERTS if alert["alert"] == "RcmlNotCompacting"]
    default = ServeConfig.model_fields["compact_at"].default
    assert alert["expr"] == f"rcml_overlay_changes > {3 * default}"
    assert re.findall(r"\d+", alert["annotations"]["summary"]) == [str(default)]


@pytest.mark.parametrize(
    ("expression", "read"),
    [
        ('sum by (job) (rate(a_total{job="b"}[5m]))', {"a_total"}),
        ("x:y:rate5m / (z > 0) or vector(0)", {"x:y:rate5m", "z"}),
        ('a offset 1h and on (job, instance) b == 1e3 unless c{d=~"e|f{2}"}', {"a", "b", "c"}),
        ('histogram_quantile(0.99, sum by (le) (rate(h_bucket{r!~"/x"}[$__rate_interval])))', {"h_bucket"}),
    ],
)
def test_names_of_metrics_are_found(expression: str, read: set[str]) -> None:
    assert promql.metrics(expression) == read


def test_values_that_no_label_has_are_found() -> None:
    known = {"route": {"/retrieve", "/items/{item_id}"}}
    assert promql.unmatched('a{route="/retrieve", job="x"}', known) == []
    assert promql.unmatched('a{route!~"/retrieve|/gone"}', known) == ["route=/gone"]

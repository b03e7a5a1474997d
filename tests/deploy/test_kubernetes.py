"""The manifests for Kubernetes: valid against its schemas, true to the server, and consistent with each other."""

from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from pydantic_settings import CliApp, get_subcommand

from model import __version__
from service.cli import Rcml
from service.http.route_rules import ROUTE_RULES, Role
from service.settings import ServeConfig

from .programs import DEPLOY, run

FOLDER = DEPLOY / "kubernetes"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
MANIFESTS: dict[str, dict[str, Any]] = {
    name: yaml.safe_load((FOLDER / name).read_text()) for name in KUSTOMIZATION["resources"]
}
BY_KIND = {manifest["kind"]: manifest for manifest in MANIFESTS.values()}
POD: dict[str, Any] = BY_KIND["Deployment"]["spec"]["template"]
[CONTAINER] = POD["spec"]["containers"]
LABELS = {"app.kubernetes.io/name": "rcml"}
PROBES = [name for name in CONTAINER if name.endswith("Probe")]


def served() -> ServeConfig:
    """Return the options of the server in the container."""
    options = get_subcommand(CliApp.run(Rcml, CONTAINER["args"]))
    assert isinstance(options, ServeConfig)
    return options


@pytest.mark.parametrize("version", ["1.25.0", "1.37.0"])
@pytest.mark.parametrize("name", MANIFESTS)
def test_manifest_follows_the_schema_of_its_kind(name: str, version: str) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    validator.validate(MANIFESTS[name], version, strict=True)


def test_schema_rejects_a_field_that_does_not_exist() -> None:
    validator = pytest.importorskip("kubernetes_validate")
    wrong = {**BY_KIND["Service"], "spec": {"ports": [{"port": 80, "target": "http"}]}}
    with pytest.raises(validator.ValidationError, match="target"):
        validator.validate(wrong, "1.37.0", strict=True)


def test_kustomization_lists_every_file() -> None:
    files = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert files == set(MANIFESTS)
    assert [image["name"] for image in KUSTOMIZATION["images"]] == [CONTAINER["image"]]


def test_kustomization_names_the_current_version() -> None:
    assert [image["newTag"] for image in KUSTOMIZATION["images"]] == [__version__]


def test_kubectl_builds_all_resources() -> None:
    built = list(yaml.safe_load_all(run("kubectl", "kustomize", FOLDER)))
    assert {manifest["kind"] for manifest in built} == set(BY_KIND)
    [image] = KUSTOMIZATION["images"]
    [deployment] = [manifest for manifest in built if manifest["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"{image['newName']}:{image['newTag']}"


def test_server_accepts_its_options_and_listens_where_it_is_asked() -> None:
    config = served()
    assert config.host == "0.0.0.0"
    assert config.port == CONTAINER["ports"][0]["containerPort"] == 8000
    mounts = [mount["mountPath"] for mount in CONTAINER["volumeMounts"]]
    assert config.keys is not None
    assert all(str(path.parent) in mounts for path in (config.index, config.keys))


def test_service_sets_no_option_of_the_server() -> None:
    # Kubernetes gives each container RCML_PORT=tcp://... of a Service named rcml, unless the pod forbids it.
    assert BY_KIND["Service"]["metadata"]["name"] == "rcml"
    assert POD["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("name", PROBES)
def test_probes_ask_routes_that_need_no_key(name: str) -> None:
    probe = CONTAINER[name]["httpGet"]
    assert ROUTE_RULES["GET", probe["path"]].access is Role.OPEN
    assert probe["port"] == "http"


def test_no_annotation_asks_prometheus_for_metrics_without_a_key() -> None:
    assert served().keys is not None
    assert ROUTE_RULES["GET", "/metrics"].access is not Role.OPEN
    assert not any(name.startswith("prometheus.io/") for name in POD["metadata"].get("annotations", ()))


def test_only_readiness_waits_for_the_index() -> None:
    assert {name: CONTAINER[name]["httpGet"]["path"] for name in PROBES} == {
        "startupProbe": "/livez",
        "livenessProbe": "/livez",
        "readinessProbe": "/readyz",
    }


def test_pod_has_time_to_finish_its_requests() -> None:
    [command, seconds] = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    shutdown = ServeConfig.model_fields["shutdown_seconds"].default
    assert POD["spec"]["terminationGracePeriodSeconds"] > int(seconds) + shutdown
    ready = CONTAINER["readinessProbe"]
    assert served().keep_alive_seconds > 60  # idle timeout of most load balancers
    assert ready["timeoutSeconds"] <= ready["periodSeconds"]


def test_container_is_not_root_and_writes_only_to_volumes() -> None:
    assert POD["spec"]["securityContext"]["runAsNonRoot"] is True
    assert POD["spec"]["securityContext"]["runAsUser"] > 0
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    volumes = {volume["name"]: volume for volume in POD["spec"]["volumes"]}
    assert volumes.keys() == {mount["name"] for mount in CONTAINER["volumeMounts"]}
    writable = {
        mount["mountPath"] for mount in CONTAINER["volumeMounts"] if "secret" not in volumes[mount["name"]]
    }
    assert writable == {"/data", "/tmp"}


def test_resources_refer_to_each_other() -> None:
    assert BY_KIND["Service"]["spec"]["selector"] == LABELS
    assert BY_KIND["Service"]["spec"]["ports"][0]["targetPort"] == CONTAINER["ports"][0]["name"]
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert BY_KIND[kind]["spec"]["selector"] == {"matchLabels": LABELS}
    assert POD["metadata"]["labels"] == LABELS
    target = BY_KIND["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", BY_KIND["Deployment"]["metadata"]["name"])
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in POD["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert claims == [BY_KIND["PersistentVolumeClaim"]["metadata"]["name"]]


def test_a_disruption_leaves_a_replica_and_scaling_has_a_request_to_measure() -> None:
    scaler = BY_KIND["HorizontalPodAutoscaler"]["spec"]
    assert 0 < BY_KIND["PodDisruptionBudget"]["spec"]["minAvailable"] < scaler["minReplicas"]
    assert [metric["resource"]["name"] for metric in scaler["metrics"]] == ["cpu"]
    assert "cpu" in CONTAINER["resources"]["requests"]
    assert "replicas" not in BY_KIND["Deployment"]["spec"]

"""Checks of docker-compose.yml that need no Docker engine: referenced names exist and command options are valid."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from pydantic_settings import CliApp, get_subcommand

from indexes.config import BuildConfig
from service.cli import IndexVerbs, Rcml
from service.middleware.api_keys import Keys
from service.settings import DemoConfig, ServeConfig

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN_INDEX: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose" / "compose.yml").read_text("utf-8"))
OWN = ["rcml", "gpu", "index", "replica"]
DISTRIBUTED = {"index", "replica", "postgres", "milvus", "etcd", "minio"}


def options(name: str) -> Any:
    """Return the config that the command line parses from the command of a service."""
    verb = CliApp.run(Rcml, SERVICES[name]["command"])
    config = get_subcommand(verb)
    return get_subcommand(config) if isinstance(config, IndexVerbs) else config


def test_default_profile_starts_only_sample_shop() -> None:
    assert {name for name, service in SERVICES.items() if "profiles" not in service} == {"rcml"}
    assert options("rcml") == DemoConfig(out=Path("/data/demo"), host="0.0.0.0", unguarded=True)
    assert SERVICES["rcml"]["ports"] == ["127.0.0.1:8000:8000"]


def test_gpu_profile_starts_the_sample_shop_on_one_gpu_beside_it() -> None:
    assert {name for name, service in SERVICES.items() if service.get("profiles") == ["gpu"]} == {"gpu"}
    gpu = SERVICES["gpu"]
    assert options("gpu") == options("rcml")
    assert gpu["build"]["dockerfile"] == "docker/gpu.Dockerfile"
    assert gpu["deploy"]["resources"]["reservations"]["devices"] == [
        {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    ]
    assert not {*gpu["volumes"], *gpu["ports"]} & {*SERVICES["rcml"]["volumes"], *SERVICES["rcml"]["ports"]}


@pytest.mark.parametrize("name", OWN)
def test_own_service_can_write_only_to_its_volume_and_to_memory(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp:size=1g"]
    assert service["cap_drop"] == ["ALL"]
    assert [volume.split(":")[1] for volume in service["volumes"]] == ["/data"]
    assert re.fullmatch(r"\d+g", service["mem_limit"])


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_can_gain_privileges(name: str) -> None:
    assert "no-new-privileges:true" in SERVICES[name]["security_opt"]


@pytest.mark.parametrize("command", [["docker", "compose"], ["docker-compose"]], ids=" ".join)
@pytest.mark.parametrize("folder", [".", "deploy/compose"])
def test_compose_accepts_the_file(command: list[str], folder: str) -> None:
    if (
        shutil.which(command[0]) is None
        or subprocess.run([*command, "version"], capture_output=True).returncode
    ):
        pytest.skip(f"{' '.join(command)} is not installed")
    profiles = ["--profile", "gpu", "--profile", "distributed"]
    file = next((ROOT / folder).glob("*compose.yml"))
    checked = subprocess.run(
        [*command, "--file", str(file), *profiles, "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_distributed_profile_starts_replicas_and_their_servers() -> None:
    assert {
        name for name, service in SERVICES.items() if service.get("profiles") == ["distributed"]
    } == DISTRIBUTED


def test_volumes_are_declared_and_used() -> None:
    named = {volume.split(":")[0] for service in SERVICES.values() for volume in service["volumes"]}
    assert named == set(COMPOSE["volumes"])


@pytest.mark.parametrize("name", SERVICES)
def test_dependencies_exist_and_can_meet_the_condition_of_depends_on(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        assert needed in SERVICES
        if how["condition"] == "service_healthy":
            ours = "build" in SERVICES[needed]  # our images have a HEALTHCHECK
            assert ours or "healthcheck" in SERVICES[needed]
        else:
            assert how["condition"] == "service_completed_successfully"
            assert "restart" not in SERVICES[needed]


@pytest.mark.parametrize("name", sorted(DISTRIBUTED - {"index", "replica"}))
def test_third_party_image_is_pinned_and_publishes_no_ports(name: str) -> None:
    tag = SERVICES[name]["image"].rpartition(":")[2]
    assert any(character.isdigit() for character in tag)
    assert "ports" not in SERVICES[name]


@pytest.mark.parametrize("name", OWN)
def test_own_image_has_dockerfile_with_arguments_and_healthcheck(name: str) -> None:
    build = SERVICES[name]["build"]
    dockerfile = (ROOT / build["context"] / build["dockerfile"]).read_text("utf-8")
    for argument in build.get("args", {}):
        assert f"\nARG {argument}=" in dockerfile
    assert "HEALTHCHECK" in dockerfile


def test_ports_are_published_only_on_loopback() -> None:
    assert all(
        port.startswith("127.0.0.1:") for service in SERVICES.values() for port in service.get("ports", [])
    )


def test_replica_runs_unguarded_without_keys() -> None:
    assert len(Keys.open(options("replica"))) == 0


def test_index_service_builds_index_that_replicas_serve() -> None:
    built, served = options("index"), options("replica")
    assert isinstance(built, BuildConfig)
    assert isinstance(served, ServeConfig)
    assert built.out == served.index == Path("/data/distributed")
    assert (built.vectors, built.journal) == ("http://milvus:19530", "postgresql://rcml@postgres/rcml")
    assert built.checkpoint.is_relative_to(options("rcml").out)
    assert SERVICES["index"]["build"]["args"]["LOCK"] == "distributed"


def test_own_index_is_served_behind_keys_with_the_rights_of_the_sample_shop() -> None:
    [(name, service)] = OWN_INDEX["services"].items()
    served = get_subcommand(CliApp.run(Rcml, service["command"]))
    assert isinstance(served, ServeConfig)
    assert (served.index, served.keys) == (Path("/data/index"), Path("/data/keys"))
    assert (served.unguarded, service["ports"], service["volumes"]) == (
        False,
        ["127.0.0.1:8000:8000"],
        ["./data:/data"],
    )
    assert COMPOSE["x-hardened"].items() <= service.items()
    assert (name, service["image"], service["restart"]) == ("rcml", "rcml", "unless-stopped")


@pytest.mark.parametrize("name", OWN)
def test_log_of_own_service_is_rotated(name: str) -> None:
    assert SERVICES[name]["logging"] == {"driver": "local"}

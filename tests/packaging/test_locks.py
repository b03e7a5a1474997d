"""Tests that the lock files of the images pin releases allowed by pyproject.toml, with hashes."""

import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from .test_client_alone import PROJECT, ROOT
from .test_extras import EXTRAS

DISTRIBUTED = ["cpu", "milvus", "postgres"]


def pinned(name: str) -> dict[str, Version]:
    """Return the release of each distribution in a lock file of the images, and assert that each has a hash."""
    found: dict[str, Version] = {}
    for block in re.split(r"\n(?=\S)", (ROOT / "docker" / f"{name}.lock").read_text().strip()):
        project, version = re.match(r"([\w.-]+)==(\S+)", block).groups()  # type: ignore[union-attr]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), f"{project} has no hash"
        found[project] = Version(version)
    return found


def required(extra: str) -> list[Requirement]:
    """Return the direct requirements of an extra, with `rcml[runtime]` replaced by its requirements."""
    names = [*PROJECT["dependencies"], *EXTRAS[extra], *EXTRAS["runtime"]]
    return [Requirement(one) for one in names if not one.startswith("rcml[")]


@pytest.mark.parametrize(
    ("name", "extras"), [("cpu", ["cpu"]), ("gpu", ["gpu"]), ("distributed", DISTRIBUTED)]
)
def test_pins_every_requirement_within_its_range(name: str, extras: list[str]) -> None:
    found = pinned(name) if name == "gpu" else pinned(name) | pinned("torch")
    wrong = {
        one.name
        for extra in extras
        for one in required(extra)
        if not one.specifier.contains(found.get(canonicalize_name(one.name), Version("0")))
    }
    assert wrong == set()


def test_images_install_tested_torch_release() -> None:
    release = re.search(r"torch==(\S+)", (ROOT / "Makefile").read_text())
    image = re.search(r"torch==([\d.]+)", (ROOT / "docker" / "cpu.Dockerfile").read_text())
    assert release is not None
    assert image is not None
    assert release[1] == image[1] == str(pinned("gpu")["torch"]) == str(pinned("torch")["torch"])


@pytest.mark.parametrize("name", ["cpu", "distributed"])
def test_lock_files_of_cpu_images_leave_cuda_to_that_of_torch(name: str) -> None:
    assert [one for one in pinned(name) if one.startswith(("nvidia", "cuda", "torch", "triton"))] == []
    assert not pinned(name).keys() & pinned("torch").keys()
    assert not {"faiss-gpu"} & pinned(name).keys()
    assert not {"faiss-cpu"} & pinned("gpu").keys()


def test_lock_files_pin_the_same_releases() -> None:
    assert pinned("cpu").items() <= pinned("distributed").items()
    assert pinned("torch").items() <= pinned("gpu").items()

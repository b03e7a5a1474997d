"""Tests that the lock files of the images pin releases allowed by pyproject.toml, with hashes."""

import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from .test_client_alone import PROJECT, ROOT
from .test_extras import EXTRAS


def pinned(extra: str) -> dict[str, Version]:
    """Return the release of each distribution in the lock file of an extra, and assert that each has a hash."""
    found: dict[str, Version] = {}
    for block in re.split(r"\n(?=\S)", (ROOT / "docker" / f"{extra}.lock").read_text().strip()):
        name, version = re.match(r"([\w.-]+)==(\S+)", block).groups()  # type: ignore[union-attr]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), f"{name} has no hash"
        found[name] = Version(version)
    return found


def required(extra: str) -> list[Requirement]:
    """Return the direct requirements of an extra, with `rcml[runtime]` replaced by its requirements."""
    names = [*PROJECT["dependencies"], *EXTRAS[extra], *EXTRAS["runtime"]]
    return [Requirement(one) for one in names if not one.startswith("rcml[")]


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_pins_every_requirement_within_its_range(extra: str) -> None:
    found = pinned(extra)
    absent = {"torch"} if extra == "cpu" else set()  # the Dockerfile installs the CPU build separately
    wrong = {
        one.name
        for one in required(extra)
        if not one.specifier.contains(found.get(canonicalize_name(one.name), Version("0")))
    }
    assert wrong == absent


def test_images_install_tested_torch_release() -> None:
    release = re.search(r"torch==(\S+)", (ROOT / "Makefile").read_text())
    image = re.search(r"torch==(\S+)", (ROOT / "docker" / "cpu.Dockerfile").read_text())
    assert release is not None
    assert image is not None
    assert release[1] == image[1] == str(pinned("gpu")["torch"])


def test_lock_files_pin_no_packages_for_other_device() -> None:
    assert [name for name in pinned("cpu") if name.startswith(("nvidia", "cuda", "triton"))] == []
    assert not {"faiss-cpu"} & pinned("gpu").keys()
    assert not {"faiss-gpu"} & pinned("cpu").keys()

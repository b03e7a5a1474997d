"""The lock files of the images pin, by hash, releases that pyproject.toml allows."""

import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from .test_client_alone import PROJECT, ROOT
from .test_extras import EXTRAS


def pinned(extra: str) -> dict[str, Version]:
    """Release of each distribution in the lock file of an extra; every one has a hash."""
    found: dict[str, Version] = {}
    for block in re.split(r"\n(?=\S)", (ROOT / "docker" / f"{extra}.lock").read_text().strip()):
        name, version = re.match(r"([\w.-]+)==(\S+)", block).groups()  # type: ignore[union-attr]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), f"{name} has no hash"
        found[name] = Version(version)
    return found


def required(extra: str) -> list[Requirement]:
    """What an extra asks for directly, `rcml[runtime]` resolved."""
    names = [*PROJECT["dependencies"], *EXTRAS[extra], *EXTRAS["runtime"]]
    return [Requirement(one) for one in names if not one.startswith("rcml[")]


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_what_an_extra_asks_for_is_pinned_within_its_range(extra: str) -> None:
    found = pinned(extra)
    absent = {"torch"} if extra == "cpu" else set()  # the image installs its CPU build beforehand
    wrong = {
        one.name
        for one in required(extra)
        if not one.specifier.contains(found.get(canonicalize_name(one.name), Version("0")))
    }
    assert wrong == absent


def test_the_images_install_the_torch_that_the_tests_run_on() -> None:
    release = re.search(r"torch==(\S+)", (ROOT / "Makefile").read_text())
    image = re.search(r"torch==(\S+)", (ROOT / "docker" / "cpu.Dockerfile").read_text())
    assert release is not None
    assert image is not None
    assert release[1] == image[1] == str(pinned("gpu")["torch"])


def test_the_image_without_cuda_pins_no_package_of_it() -> None:
    assert [name for name in pinned("cpu") if name.startswith(("nvidia", "cuda", "triton"))] == []
    assert not {"faiss-cpu"} & pinned("gpu").keys()
    assert not {"faiss-gpu"} & pinned("cpu").keys()

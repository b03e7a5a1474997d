"""Tests that the SBOM of each image lists what the image installs, and that it is valid CycloneDX."""

from collections import Counter
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from model import __version__

from .sbom import Image, bill_of, write
from .test_locks import pinned

IMAGES: tuple[Image, ...] = ("cpu", "gpu")


def versions(image: Image) -> dict[str, str]:
    return {one["name"]: one["version"] for one in bill_of(image)["components"]}


@pytest.mark.parametrize("image", IMAGES)
def test_lists_every_locked_release_torch_and_swagger_ui(image: Image) -> None:
    locked = {name: str(version) for name, version in pinned(image).items()}
    found = versions(image)
    assert found.pop("swagger-ui-dist").startswith("5.")
    assert found == {"torch": str(pinned("gpu")["torch"]), **locked}


@pytest.mark.parametrize("image", IMAGES)
def test_states_hashes_of_every_locked_release(image: Image) -> None:
    unhashed = {one["name"] for one in bill_of(image)["components"] if "externalReferences" not in one}
    assert unhashed == {"swagger-ui-dist"} | ({"torch"} if image == "cpu" else set())


@pytest.mark.parametrize("image", IMAGES)
def test_names_direct_requirements(image: Image) -> None:
    bill = bill_of(image)
    [own] = bill["dependencies"]
    assert own["ref"] == f"pkg:pypi/rcml@{__version__}" == bill["metadata"]["component"]["purl"]
    known = Counter(one["bom-ref"] for one in bill["components"])
    assert {known[ref] for ref in own["dependsOn"]} == {1}
    names = {ref.partition("@")[0] for ref in own["dependsOn"]}
    assert {"pkg:pypi/torch", "pkg:pypi/httpx", f"pkg:pypi/faiss-{image}"} <= names
    assert "pkg:pypi/starlette" not in names


def test_written_files_are_valid_and_equal_each_time(tmp_path: Path) -> None:
    written = [path.read_text("utf-8") for path in write(tmp_path / "first")]
    assert written == [path.read_text("utf-8") for path in write(tmp_path / "second")]
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert [validator.validate_str(text) for text in written] == [None, None]
    assert validator.validate_str(written[0].replace('"library"', '"shelf"')) is not None

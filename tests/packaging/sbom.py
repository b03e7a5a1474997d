"""Writer of the software bills of materials (SBOM) of the two images: `make sbom` writes them to `dist/`.

An SBOM is CycloneDX 1.6 JSON. It lists rcml, the releases in a lock file with the SHA-256 of their files, torch, and
the copy of Swagger UI in `service/static`. Equal inputs give an equal file: it has no date, and its serial number is a
name-based UUID (RFC 9562, section 5.5). The system packages of the images' base are not listed.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any, Literal
from uuid import NAMESPACE_URL, uuid5

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from model import __version__

from .test_client_alone import PROJECT, ROOT

Image = Literal["cpu", "gpu"]
Bom = dict[str, Any]

SWAGGER_UI = ROOT / "service" / "static" / "swagger-ui" / "swagger-ui-bundle.js"


def bill_of(image: Image) -> Bom:
    """Return the SBOM of an image: all components, and which of them rcml requires directly."""
    rcml = {**component(f"pkg:pypi/rcml@{__version__}"), "type": "application", **licensed("Apache-2.0")}
    components = sorted([*packages(image), swagger_ui()], key=lambda one: one["name"])
    direct = {canonicalize_name(Requirement(one).name) for one in requirements(image)}
    required = [one["bom-ref"] for one in components if one["name"] in direct | {"swagger-ui-dist"}]
    content: Bom = {
        "metadata": {"component": rcml},
        "components": components,
        "dependencies": [{"ref": rcml["bom-ref"], "dependsOn": required}],
    }
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid5(NAMESPACE_URL, image + json.dumps(content)).urn,
        "version": 1,
        **content,
    }


def requirements(image: Image) -> list[str]:
    """Return what rcml requires directly in an image."""
    extras = PROJECT["optional-dependencies"]
    found = [*PROJECT["dependencies"], *extras["runtime"], *extras[image]]
    return [one for one in found if not one.startswith("rcml[")]


def packages(image: Image) -> list[Bom]:
    """Return a component for each release in the lock file, and for torch, which the CPU image installs separately."""
    lock = (ROOT / "docker" / f"{image}.lock").read_text("utf-8")
    found = []
    for block in re.split(r"\n(?=\S)", lock.strip()):
        name, version = re.match(r"([\w.-]+)==(\S+)", block).groups()  # type: ignore[union-attr]
        purl = f"pkg:pypi/{canonicalize_name(name)}@{version}"
        digests = re.findall(r"--hash=sha256:([0-9a-f]{64})", block)
        hashes = [{"alg": "SHA-256", "content": digest} for digest in digests]
        files = [{"type": "distribution", "url": purl, "hashes": hashes}]
        found.append({**component(purl), "externalReferences": files})
    if all(one["name"] != "torch" for one in found):
        dockerfile = (ROOT / "docker" / f"{image}.Dockerfile").read_text("utf-8")
        found.append(component(f"pkg:pypi/torch@{re.search(r'torch==([0-9.]+)', dockerfile)[1]}"))  # type: ignore[index]
    return found


def swagger_ui() -> Bom:
    """Return the component of the copied Swagger UI, whose bundle states its version."""
    [version] = re.findall(r'PACKAGE_VERSION:"([^"]+)"', SWAGGER_UI.read_text("utf-8"))
    return {**component(f"pkg:npm/swagger-ui-dist@{version}"), **licensed("Apache-2.0")}


def component(purl: str) -> Bom:
    """Return a component without optional fields, from a package URL such as `pkg:pypi/httpx@0.28.1`."""
    name, version = purl.rpartition("/")[2].split("@")
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def licensed(spdx: str) -> Bom:
    """Return the field `licenses` for a licence with this SPDX identifier."""
    return {"licenses": [{"license": {"id": spdx}}]}


def write(folder: Path) -> list[Path]:
    """Write the SBOM of both images to `folder` and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    images: tuple[Image, ...] = ("cpu", "gpu")
    paths = [folder / f"rcml-{__version__}-{image}.cdx.json" for image in images]
    for path, image in zip(paths, images, strict=True):
        path.write_text(json.dumps(bill_of(image), indent=2) + "\n", encoding="utf-8")
    return paths


if __name__ == "__main__":
    for path in write(Path(sys.argv[1])):
        print(f"Wrote {path}.")

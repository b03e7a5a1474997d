"""Tests that the wheel and the sdist hold every file of the four packages and nothing else, and work elsewhere."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from model import __version__

from .test_client_alone import ROOT

PACKAGES = ("rcml", "model", "indexes", "service")
NOT_SOURCES = (".git", ".venv", "var", "dist", "build", "site", "*.egg-info", "__pycache__", ".*_cache")


def files_of_packages() -> set[str]:
    """Return the paths of all files of the packages, relative to the root."""
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts}


def built(source: Path, out: Path, what: str) -> Path:
    """Build the `sdist` or the `wheel` of a source tree as pip does, and return its path."""
    code = f"from setuptools import build_meta\nprint(build_meta.build_{what}({str(out)!r}))"
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True
    )
    return out / shown.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist of a copy of the whole repository, with its tests and documents."""
    folder = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*NOT_SOURCES))
    return built(folder / "source", folder, "sdist")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the sdist."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return built(folder / f"rcml-{__version__}", folder, "wheel")


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel, without its dependencies, into a folder."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*pip, str(folder), str(wheel)], check=True)
    return folder


def run(installed: Path, folder: Path, *command: str) -> str:
    """Run a command in `folder`, with the installed packages before those of the repository; return its output."""
    shown = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(installed)}, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def test_sdist_holds_packages_and_what_builds_them(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    others = {name for name in names - files_of_packages() if not name.startswith("rcml.egg-info/")}
    assert files_of_packages() <= names
    assert others == {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}


def test_wheel_holds_packages_and_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"rcml-{__version__}.dist-info"
    assert {name for name in names if not name.startswith(info)} == files_of_packages()
    assert f"{info}/licenses/LICENSE" in names


def test_installed_command_runs_outside_the_repository(installed: Path, tmp_path: Path) -> None:
    assert run(installed, tmp_path, str(installed / "bin" / "rcml"), "--version") == f"rcml {__version__}\n"


def test_installed_service_serves_explorer_and_documentation(installed: Path, tmp_path: Path) -> None:
    code = (
        "import service\n"
        "from pathlib import Path\n"
        "from starlette.testclient import TestClient\n"
        "from service.app import create_app\n"
        "from service.settings import ServeConfig\n"
        "package = Path(service.__file__).parent\n"
        "files = [path.relative_to(package) for path in (package / 'static').rglob('*.*')]\n"
        "client = TestClient(create_app(ServeConfig(index=Path('index'))))\n"
        "for path in ('', 'docs', *map(str, files)):\n"
        "    print(client.get(f'/{path}').status_code)\n"
        "print(package)\n"
    )
    *statuses, package = run(installed, tmp_path, sys.executable, "-c", code).splitlines()
    assert package == str(installed / "service")
    shipped = [path for path in (ROOT / "service" / "static").rglob("*.*") if path.is_file()]
    assert statuses == ["200"] * (2 + len(shipped))


def test_installed_presets_can_be_read(installed: Path, tmp_path: Path) -> None:
    code = (
        "from model.data.relations import presets\nprint(len(presets.read_preset('baby')), presets.FOLDER)\n"
    )
    count, folder = run(installed, tmp_path, sys.executable, "-c", code).split()
    assert int(count) > 1
    assert folder == str(installed / "model/data/relations/presets")

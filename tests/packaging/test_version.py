"""Tests that the version is stated once, and that the changelog begins with it."""

import re

import rcml
from model import __version__

from .test_client_alone import ROOT


def test_changelog_begins_with_current_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == __version__


def test_version_is_stated_in_one_source_file() -> None:
    sources = (
        path for name in ("rcml", "model", "indexes", "service") for path in (ROOT / name).rglob("*.py")
    )
    stating = [path for path in sources if f'"{__version__}"' in path.read_text("utf-8")]
    assert stating == [ROOT / "model" / "__init__.py"]
    assert f'version = "{__version__}"' not in (ROOT / "pyproject.toml").read_text("utf-8")
    assert rcml.__version__ == __version__

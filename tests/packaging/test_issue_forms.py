"""Tests that the forms for issues have the fields that GitHub requires, and name files that exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.docs.documents import ROOT

FOLDER = ROOT / ".github" / "ISSUE_TEMPLATE"
FORMS = [path for path in sorted(FOLDER.glob("*.yml")) if path.name != "config.yml"]


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_form_has_name_description_and_a_required_field(form: Path) -> None:
    content = read(form)
    assert content.keys() == {"name", "description", "labels", "body"}
    fields = [part for part in content["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in fields}) == len(fields)
    assert all(part["attributes"]["label"] for part in fields)
    assert any(part.get("validations", {}).get("required") for part in fields)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_files_named_by_form_exist(form: Path) -> None:
    named = re.findall(r"[\w/.]+\.md", form.read_text("utf-8"))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_blank_issues_are_off() -> None:
    assert read(FOLDER / "config.yml")["blank_issues_enabled"] is False

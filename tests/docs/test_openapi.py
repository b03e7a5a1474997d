"""Tests that docs/openapi.json matches the application."""

import json
import subprocess
import sys

from model import __version__

from .openapi import COMMITTED, described


def test_committed_document_matches_application() -> None:
    assert COMMITTED.read_text("utf-8") == described(), (
        "docs/openapi.json no longer describes the API. Run `make openapi` to update it, and review the changes."
    )


def test_committed_document_has_current_version_and_no_examples() -> None:
    committed = json.loads(COMMITTED.read_text("utf-8"))
    assert committed["info"]["version"] == __version__
    body = committed["paths"]["/retrieve"]["post"]["requestBody"]["content"]["application/json"]
    assert "examples" not in body


def test_generation_is_deterministic_and_does_not_import_torch() -> None:
    program = (
        "import sys; from tests.docs.openapi import described; "
        "sys.stdout.reconfigure(encoding='utf-8'); sys.stdout.write(described()); assert 'torch' not in sys.modules"
    )
    made = [
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout.decode()
        for seed in ("1", "2")
    ]
    assert made[0] == made[1] == described()

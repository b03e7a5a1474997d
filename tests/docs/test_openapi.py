"""docs/openapi.json is what the service says of itself."""

import json
import subprocess
import sys

from model import __version__

from .openapi import COMMITTED, described


def test_the_committed_description_is_that_of_the_service() -> None:
    assert COMMITTED.read_text("utf-8") == described(), (
        "The API is no longer what docs/openapi.json says. `make openapi` writes it anew; look at what changed."
    )


def test_it_is_of_this_version_and_names_no_item_of_any_catalogue() -> None:
    committed = json.loads(COMMITTED.read_text("utf-8"))
    assert committed["info"]["version"] == __version__
    body = committed["paths"]["/retrieve"]["post"]["requestBody"]["content"]["application/json"]
    assert "examples" not in body


def test_it_is_made_without_torch_and_alike_whatever_the_hash_seed() -> None:
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

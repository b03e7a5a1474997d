"""The API's description as it is committed: `make openapi` writes docs/openapi.json, and a test compares it.

It is what a server without an index says: examples from a catalogue are left out.
"""

import json
from pathlib import Path

from service.app import create_app
from service.http.openapi import document
from service.settings import ServeConfig

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"


def described() -> str:
    """The document as text; schemas in the order of their names, so that adding a route moves none of them."""
    app = create_app(ServeConfig(index=Path("index")))
    api = document(app)
    api["components"]["schemas"] = dict(sorted(api["components"]["schemas"].items()))
    return json.dumps(api, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    COMMITTED.write_text(described(), encoding="utf-8")

"""Generator of docs/openapi.json: `make openapi` writes the file, and a test compares it with the application.

The document has no examples, because examples come from the catalogue of an open index.
"""

import json
from pathlib import Path

from service.app import create_app
from service.http.openapi import document
from service.settings import ServeConfig

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"


def described() -> str:
    """Return the document as text; the schemas are sorted by name, so a new route does not reorder them."""
    app = create_app(ServeConfig(index=Path("index")))
    api = document(app)
    api["components"]["schemas"] = dict(sorted(api["components"]["schemas"].items()))
    return json.dumps(api, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    COMMITTED.write_text(described(), encoding="utf-8")

"""`relations.json`: the relations of prepared data or of a checkpoint, in order."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from .plain_file import decoding, read_json
from .records import Relation


def save_relations(folder: Path, relations: Sequence[Relation]) -> None:
    """Write `relations.json` into `folder`."""
    found = [asdict(relation) for relation in relations]
    for raw in found:
        # Earlier versions had neither. Omitting what is empty gives the same bytes as those versions wrote.
        for added in ("domain", "name"):
            if not raw[added]:
                del raw[added]
    text = json.dumps(found, indent=2, ensure_ascii=False)
    (folder / "relations.json").write_text(text + "\n", encoding="utf-8")


def load_relations(folder: Path) -> tuple[Relation, ...]:
    """Read `relations.json` from `folder`.

    Raises:
        ArtifactError: the file is damaged.
    """
    path = folder / "relations.json"
    with decoding(path):
        return tuple(Relation(**raw) for raw in read_json(path))

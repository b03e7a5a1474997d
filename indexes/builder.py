"""From a checkpoint and prepared items to an index: every item embedded under every relation, once.

    index/
      manifest.json config.json   what it is; its parents are a checkpoint and prepared data
      checkpoint.json             where the checkpoint lies, seen from this folder
      relations.json              the relations, and how many pairs of items are known under each
      catalogue.sqlite            the items, in rows
      vectors/003.text.faiss ...  one a relation (by position) and view; row i is catalogue row i
      pictures/                   one file an item

Called by `rcml index`, which opens the encoder: this file never loads torch.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from model.artifact import PICTURES, write_artifact
from model.checkpoint import Checkpoint
from model.encoding import Encoding, ItemEncoder
from model.prepared import Prepared
from model.records import Item
from model.terminal import progress

from .catalogue import write_catalogue
from .config import IndexConfig
from .faiss_vectors import FOLDER, FaissVectors


def build(config: IndexConfig, encoder: ItemEncoder, checkpoint: Checkpoint, prepared: Prepared) -> None:
    """Write the index of `prepared` under `checkpoint` to `config.out`; `encoder` is that checkpoint, opened.

    Only one batch of items is held at a time, beside the vectors already in half precision.

    Raises:
        ArtifactError: `config.out` holds something else, or another run is writing it.
    """
    assert encoder.relations == checkpoint.relations, "the encoder is not the one of the checkpoint"
    parents = {"checkpoint": checkpoint.manifest.digest, "prepared": prepared.manifest.digest}
    with write_artifact(config.out, "index", config, parents) as draft:
        vectors = FaissVectors.empty(len(checkpoint.relations), encoder.dim)
        batches = -(-len(prepared.items) // config.batch_size)
        for encoding in progress(
            _encodings(encoder, prepared, config.batch_size), "embedding items", batches
        ):
            vectors.add(encoding)
        vectors.save(draft.path / FOLDER)
        write_catalogue(draft.path, prepared.items)
        shutil.copytree(prepared.path / PICTURES, draft.path / PICTURES)
        _write_relations(draft.path, prepared, checkpoint)
        _write_checkpoint_path(draft.path, config)
        draft.counts["items"] = len(prepared.items)
        draft.counts["relations"] = len(checkpoint.relations)


def _encodings(encoder: ItemEncoder, prepared: Prepared, batch_size: int) -> Iterator[Encoding]:
    for start in range(0, len(prepared.items), batch_size):
        yield _encode(encoder, prepared.path, prepared.items[start : start + batch_size])


def _encode(encoder: ItemEncoder, folder: Path, items: tuple[Item, ...]) -> Encoding:
    with ExitStack() as files:
        pictures = [files.enter_context(Image.open(folder / item.picture)).convert("RGB") for item in items]
    return encoder.encode_items([item.text for item in items], pictures)


def _write_relations(folder: Path, prepared: Prepared, checkpoint: Checkpoint) -> None:
    pairs = Counter(edge.relation_id for edge in prepared.edges)
    relations = [
        {**asdict(relation), "pairs": None if relation.intra else pairs[relation.relation_id]}
        for relation in checkpoint.relations
    ]
    _write_json(folder / "relations.json", relations)


def _write_checkpoint_path(folder: Path, config: IndexConfig) -> None:
    """Relative, so that a folder that holds both may be moved."""
    path = os.path.relpath(config.checkpoint.resolve(), config.out.resolve())
    _write_json(folder / "checkpoint.json", {"path": Path(path).as_posix()})


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

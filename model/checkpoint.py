"""A trained network on disk, as far as it can be read without torch: `indexes` and `service` need no more.

checkpoint/
  manifest.json config.json     what it is; the options it was trained with
  network.json model.safetensors   shape and weights (read by `model/encoder.py`)
  tokenizer*, preprocessor_config.json   what the text and the pictures go through first
  relations.json relations.safetensors   the relations, and h_E of each under these weights
  validity.safetensors metrics.json README.md   the validity head, validation figures, the model card
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float32
from numpy import ndarray
from safetensors.numpy import load_file, save_file

from .artifact import Manifest, open_artifact
from .records import Relation
from .validity import ValidityHead


@dataclass(frozen=True)
class Checkpoint:
    """The torch-free contents of a checkpoint folder, digests checked.

    `relations` are all relations the network was trained on, the intra-sample one first, and
    `relation_vectors` (float32 `[relations, dim]`, not normalised) are their h_E, in the same order.
    """

    path: Path
    manifest: Manifest
    relations: tuple[Relation, ...]
    relation_vectors: Float32[ndarray, "relations dim"]
    validity: ValidityHead
    metrics: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> "Checkpoint":
        """Open the checkpoint at `path`.

        Raises:
            ArtifactError: there is none, or it is damaged.
        """
        manifest = open_artifact(path, "checkpoint")
        return cls(
            path=path,
            manifest=manifest,
            relations=load_relations(path),
            relation_vectors=load_file(path / "relations.safetensors")["relation_vectors"],
            validity=ValidityHead.load(path),
            metrics=json.loads((path / "metrics.json").read_text()),
        )

    @property
    def dim(self) -> int:
        """Length of every vector."""
        return int(self.relation_vectors.shape[1])


def save_relations(folder: Path, relations: Sequence[Relation]) -> None:
    """Write `relations.json` into `folder`."""
    text = json.dumps([asdict(relation) for relation in relations], indent=2, ensure_ascii=False)
    (folder / "relations.json").write_text(text + "\n", encoding="utf-8")


def load_relations(folder: Path) -> tuple[Relation, ...]:
    """Read what `save_relations` wrote."""
    return tuple(
        Relation(**raw) for raw in json.loads((folder / "relations.json").read_text(encoding="utf-8"))
    )


def save_relation_vectors(folder: Path, vectors: Float32[ndarray, "relations dim"]) -> None:
    """Write `relations.safetensors` into `folder`."""
    save_file({"relation_vectors": vectors}, folder / "relations.safetensors")

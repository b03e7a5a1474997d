"""Checkpoint on disk, with the contents that `indexes` and `service` need and that can be read without torch.

checkpoint/
  manifest.json config.json     kind and digests; training options
  network.json model.safetensors   shape and weights of the network (read and written by `model/encoder/save_load.py`)
  tokenizer*, preprocessor_config.json   tokenizer and image processor
  relations.json relations.safetensors   relations, and h_E of each under these weights
  validity.safetensors calibration.json   validity head; calibration of scores into probabilities
  metrics.json README.md   training and validation figures; model card
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float32
from numpy import ndarray
from pydantic import BaseModel, ConfigDict
from safetensors.numpy import load_file, save_file

from model.artifact import README_FILE, Manifest, open_artifact
from model.plain_file import decoding, read_model, read_text
from model.records import Relation
from model.relation_file import load_relations, save_relations

from .calibration import CALIBRATION_FILE, UNCALIBRATED, Calibration
from .training_metrics import METRICS_FILE, TrainingMetrics
from .validity import ValidityHead

WEIGHTS_FILE = "model.safetensors"

OWN_FILES = {
    "config.json", "network.json", WEIGHTS_FILE, "relations.json", "relations.safetensors", "validity.safetensors",
    CALIBRATION_FILE, METRICS_FILE, README_FILE,
}  # fmt: skip
"""Files of a checkpoint that rcml writes itself; the others belong to the tokenizer and the image processor."""


class RecordedOptions(BaseModel):
    """Content of `config.json`, kept verbatim.

    Another version of rcml may have other options than `TrainConfig`.
    """

    model_config = ConfigDict(frozen=True, extra="allow")


@dataclass(frozen=True)
class Checkpoint:
    """Torch-free contents of a checkpoint folder with verified digests.

    `relations` are all relations that the network was trained on, with the intra-sample relation first.
    `relation_vectors` (float32 `[relations, dim]`, not normalised) are their h_E in the same order.
    """

    path: Path
    manifest: Manifest
    config: RecordedOptions
    relations: tuple[Relation, ...]
    relation_vectors: Float32[ndarray, "relations dim"]
    validity: ValidityHead
    calibration: Calibration
    metrics: TrainingMetrics

    @classmethod
    def open(cls, path: Path) -> "Checkpoint":
        """Open the checkpoint at `path`.

        Raises:
            ArtifactError: the checkpoint is missing or damaged.
        """
        manifest = open_artifact(path, "checkpoint")
        return cls(
            path=path,
            manifest=manifest,
            config=read_model(RecordedOptions, path / "config.json"),
            relations=load_relations(path),
            relation_vectors=_load_relation_vectors(path / "relations.safetensors"),
            validity=ValidityHead.load(path),
            calibration=Calibration.load(path),
            metrics=TrainingMetrics.load(path),
        )

    @property
    def card(self) -> str:
        """Text of README.md; empty if it was removed. Serving does not read it, because anybody may edit it.

        Raises:
            ArtifactError: README.md is not a plain file of UTF-8 text.
        """
        try:
            return read_text(self.path / README_FILE)
        except FileNotFoundError:
            return ""

    @property
    def dim(self) -> int:
        """Length of every vector."""
        return int(self.relation_vectors.shape[1])


def write_contents(
    folder: Path,
    relations: Sequence[Relation],
    relation_vectors: Float32[ndarray, "relations dim"],
    validity: ValidityHead,
    metrics: TrainingMetrics,
    card: str,
    calibration: Calibration = UNCALIBRATED,
) -> None:
    """Write the torch-free files of a checkpoint into `folder`, the folder of a draft.

    `write_artifact` writes `config.json` and `manifest.json`.
    """
    save_relations(folder, relations)
    save_relation_vectors(folder, relation_vectors)
    validity.save(folder)
    calibration.save(folder)
    metrics.save(folder)
    (folder / README_FILE).write_text(card, encoding="utf-8")


def save_relation_vectors(folder: Path, vectors: Float32[ndarray, "relations dim"]) -> None:
    """Write `relations.safetensors` into `folder`."""
    save_file({"relation_vectors": vectors}, folder / "relations.safetensors")


def _load_relation_vectors(path: Path) -> Float32[ndarray, "relations dim"]:
    with decoding(path):
        return load_file(path)["relation_vectors"]

"""Qwen3-VL-Embedding, which reads an instruction with each input (the package `sentence-transformers`, an extra).

The relation is the instruction. A text and a picture are therefore read again under every relation, unlike in systems
with one tower per modality.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from model.config import Device
from model.data.pictures.images import load_picture
from model.embeddings.encoding import Encoding, unit_rows
from model.errors import InputError
from model.network.backbone_config import shortened
from model.network.devices import choose_device
from model.records import Relation

from .optional_package import import_optional
from .system import Passes

Input = TypeVar("Input")

BATCH = 8
"""Number of inputs encoded in one batch."""


class InstructedSystem:
    """Multimodal embedder that reads the relation as an instruction, before the text or the picture; see `System`."""

    def __init__(self, name: str, model: Any) -> None:
        self.name = name
        self._model = model
        self.dim: int = model.get_embedding_dimension()
        self.parameters = sum(weight.numel() for weight in model.parameters())

    def passes(self, items: int, relations: int) -> Passes:
        """Return one pass per text and relation, and one per picture and relation."""
        return Passes(items * relations, items * relations)

    def encode(
        self, texts: Sequence[str], pictures: Sequence[Path | None], relations: Sequence[Relation]
    ) -> Encoding:
        """Encode items into unit vectors under each relation; see `System.encode`."""
        described = self._vectors([text.strip() or None for text in texts], _text, relations)
        return Encoding(described, self._vectors(pictures, _image, relations))

    def _vectors(
        self,
        inputs: Sequence[Input | None],
        content: Callable[[Input], dict[str, Any]],
        relations: Sequence[Relation],
    ) -> Float32[ndarray, "inputs relations dim"]:
        vectors = np.zeros((len(inputs), len(relations), self.dim), np.float32)
        rows = [row for row, one in enumerate(inputs) if one is not None]
        for first in range(0, len(rows), BATCH):
            batch = rows[first : first + BATCH]
            contents = [content(one) for row in batch if (one := inputs[row]) is not None]
            for place, relation in enumerate(relations):
                found = self._model.encode(
                    contents, prompt=relation.description, batch_size=BATCH, show_progress_bar=False
                )
                vectors[batch, place] = unit_rows(np.asarray(found, np.float32), 1e-12)
        return vectors


def _text(text: str) -> dict[str, Any]:
    return {"text": text}


def _image(path: Path) -> dict[str, Any]:
    return {"image": load_picture(path)}


def open_qwen_embedding(folder: Path, device: Device) -> InstructedSystem:
    """Open Qwen3-VL-Embedding from a local folder in the format of sentence-transformers.

    Raises:
        InputError: sentence-transformers or torchvision is not installed, the folder is incomplete, or the model does
            not read pictures.
    """
    package = import_optional("sentence_transformers")
    import_optional("torchvision")  # which the processor of Qwen3-VL needs
    try:
        model = package.SentenceTransformer(
            str(folder),
            device=str(choose_device(device)),
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise InputError(
            f"sentence-transformers cannot load {folder}: {shortened(error)} Download the whole model into this folder."
        ) from None
    if not (model.supports("text") and model.supports("image")):
        raise InputError(
            f"The model in {folder} reads {', '.join(map(str, model.modalities))}. Use one for texts and images."
        )
    return InstructedSystem(f"qwen-vl-embedding:{folder}", model)

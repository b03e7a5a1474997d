"""A checkpoint's network at work: texts and pictures in, unit vectors under every relation out.

Opened by `rcml index`, `rcml evaluate` and the service; the trainer validates with it while it trains.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import Float32, Int
from numpy import ndarray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from .backbone import Preprocessor, TextInput
from .checkpoint import Checkpoint
from .config import Device
from .encoding import Encoding
from .errors import ArtifactError, InputError
from .network import Network, NetworkConfig, RelationContext
from .pictures import Pictures, load_pictures
from .records import Relation

BATCH = 128
"""Items encoded at a time."""


class Encoder:
    """Encodes new and known items under all relations of a checkpoint."""

    def __init__(
        self,
        network: Network,
        preprocessor: Preprocessor,
        relations: Sequence[Relation],
        device: torch.device,
    ) -> None:
        self._network = network.to(device)
        self._preprocessor = preprocessor
        self._device = device
        self.relations = tuple(relations)
        self._known: tuple[int, RelationContext] | None = None

    @classmethod
    def open(cls, checkpoint: Path, device: Device = "auto") -> Self:
        """Load the network of the checkpoint at this path.

        Raises:
            ArtifactError: there is none, or its weights are not those of its network.
            InputError: CUDA is asked for and there is none.
        """
        opened = Checkpoint.open(checkpoint)
        config = NetworkConfig.model_validate(json.loads((checkpoint / "network.json").read_text()))
        network = Network.from_config(config)
        try:
            network.load_state_dict(load_file(checkpoint / "model.safetensors"))
        except RuntimeError as error:
            raise ArtifactError(
                f"{checkpoint}/model.safetensors does not fit network.json: {error}"
            ) from None
        return cls(network.eval(), Preprocessor.load(checkpoint), opened.relations, choose_device(device))

    @property
    def dim(self) -> int:
        """Length of every vector."""
        return self._network.backbone.dim

    @property
    def device(self) -> str:
        """Where the network runs, in words."""
        if self._device.type == "cuda":
            return f"cuda ({torch.cuda.get_device_name(self._device)})"
        return self._device.type

    @property
    def relation_vectors(self) -> Float32[ndarray, "relations dim"]:
        """h_E of every relation, not normalised."""
        return _on_cpu(self.context().vectors)

    @torch.inference_mode()
    def context(self) -> RelationContext:
        """The relations under the weights as they are now; encoded once for each version of the weights."""
        version = self._network.version
        if self._known is None or self._known[0] != version:
            context = relation_context(self._network, self._preprocessor, self.relations, self._device)
            self._known = (version, context)
        return self._known[1]

    def encode_items(self, texts: Sequence[str], pictures: Sequence[Image.Image]) -> Encoding:
        """Unit vectors of items under every relation, float32 `[items, relations, dim]` in either view."""
        room = self._preprocessor.blank(len(pictures))
        for row, picture in enumerate(pictures):
            self._preprocessor.decode(picture, room, row)
        return self.encode_inputs(self._preprocessor.tokenize(texts), room)

    def encode_inputs(self, text: TextInput, pictures: Pictures) -> Encoding:
        """`encode_items` for texts already tokenized and pictures already decoded."""
        return Encoding(self._encode_text(text), self._encode_pictures(pictures))

    def encode_part(self, texts: Sequence[str], paths: Sequence[Path]) -> Encoding:
        """`encode_items` for many items whose pictures are on disk."""
        return self.encode_inputs(
            self._preprocessor.tokenize(texts), load_pictures(self._preprocessor, paths)
        )

    def encode_texts(self, texts: Sequence[str]) -> Float32[ndarray, "texts relations dim"]:
        """Unit text vectors under every relation."""
        return self._encode_text(self._preprocessor.tokenize(texts))

    def _encode_text(self, text: TextInput) -> Float32[ndarray, "texts relations dim"]:
        def encode(rows: Int[Tensor, "batch"], context: RelationContext) -> Tensor:
            return self._network.text_vectors(text.take(rows).to(self._device), context)

        # Batched by length, so that short texts are not padded to the longest.
        return self._encode(text.mask.sum(dim=1).argsort(stable=True), encode)

    def _encode_pictures(self, pictures: Pictures) -> Float32[ndarray, "pictures relations dim"]:
        def encode(rows: Int[Tensor, "batch"], context: RelationContext) -> Tensor:
            batch = self._preprocessor.normalise(pictures.take(rows).to(self._device))
            return self._network.image_vectors(batch, context)

        return self._encode(torch.arange(len(pictures)), encode)

    @torch.inference_mode()
    def _encode(
        self,
        order: Int[Tensor, "items"],
        encode: Callable[[Int[Tensor, "batch"], RelationContext], Tensor],
    ) -> Float32[ndarray, "items relations dim"]:
        context = self.context()
        vectors = np.empty((len(order), len(self.relations), self.dim), np.float32)
        for rows in order.split(BATCH):
            vectors[rows.numpy()] = _on_cpu(encode(rows, context))
        return vectors


def choose_device(device: Device) -> torch.device:
    """The device that an option means.

    Raises:
        InputError: CUDA is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "--device cuda was asked for, and this machine has no CUDA device; use --device auto."
        )
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def relation_context(
    network: Network, preprocessor: Preprocessor, relations: Sequence[Relation], device: torch.device
) -> RelationContext:
    """h_E of `relations`, each as the network sees it."""
    seen = [network.seen(relation) for relation in relations]
    texts = preprocessor.tokenize([relation.description for relation in seen])
    return network.context(texts.to(device), seen)


def _on_cpu(vectors: Tensor) -> ndarray:
    array: ndarray = vectors.float().cpu().numpy()
    return array

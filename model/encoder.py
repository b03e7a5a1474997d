"""A checkpoint's network at work: texts and pictures in, unit vectors under every relation out.

Opened by `rcml index`, `rcml evaluate` and the service; the trainer shares `embed` and the loading of pictures.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import Float32, UInt8
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
from .records import Relation
from .terminal import progress

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
        self._network = network.to(device).eval()
        self._preprocessor = preprocessor
        self._device = device
        self.relations = tuple(relations)
        with torch.inference_mode():
            self._context = relation_context(self._network, preprocessor, self.relations, device)

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
        return cls(network, Preprocessor.load(checkpoint), opened.relations, choose_device(device))

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
        vectors: ndarray = self._context.vectors.float().cpu().numpy()
        return vectors

    def encode_items(self, texts: Sequence[str], pictures: Sequence[Image.Image]) -> Encoding:
        """Unit vectors of items under every relation, float32 `[items, relations, dim]` in either view."""
        pixels = np.stack([self._preprocessor.pixels(picture.convert("RGB")) for picture in pictures])
        return self.encode_inputs(self._preprocessor.tokenize(texts), pixels)

    def encode_inputs(self, text: TextInput, pixels: UInt8[ndarray, "items 3 height width"]) -> Encoding:
        """`encode_items` for texts already tokenized and pictures already decoded."""
        return embed(self._network, self._preprocessor, text, pixels, self._context)

    def encode_part(self, texts: Sequence[str], paths: Sequence[Path]) -> Encoding:
        """`encode_items` for many items whose pictures are on disk."""
        return self.encode_inputs(self._preprocessor.tokenize(texts), load_pixels(self._preprocessor, paths))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Float32[ndarray, "texts relations dim"]:
        """Unit text vectors under every relation."""
        text = self._preprocessor.tokenize(texts).to(self._device)
        vectors: ndarray = self._network.text_vectors(text, self._context).float().cpu().numpy()
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


def load_pixels(
    preprocessor: Preprocessor, paths: Sequence[Path], into: ndarray | None = None
) -> UInt8[ndarray, "items 3 height width"]:
    """Decode the pictures at `paths`, in parallel; `into` may be an array on disk to fill."""
    side = preprocessor.image_size
    pixels = np.empty((len(paths), 3, side, side), dtype=np.uint8) if into is None else into

    def load(row: int) -> None:
        with Image.open(paths[row]) as picture:
            picture.draft("RGB", (side, side))
            pixels[row] = preprocessor.pixels(picture.convert("RGB"))

    with ThreadPoolExecutor() as pool:
        for _ in progress(pool.map(load, range(len(paths))), "decoding pictures", len(paths)):
            pass
    return pixels


@torch.inference_mode()
def embed(
    network: Network,
    preprocessor: Preprocessor,
    text: TextInput,
    pixels: UInt8[ndarray, "items 3 height width"],
    context: RelationContext,
) -> Encoding:
    """Vectors of all items under all relations, on the CPU.

    Texts are batched by length, so that short ones are not padded to the longest.
    """
    device = context.vectors.device
    shape = (len(pixels), len(context.vectors), network.backbone.dim)
    texts, images = np.empty(shape, np.float32), np.empty(shape, np.float32)
    batches = text.mask.sum(dim=1).argsort(stable=True).split(BATCH)
    for rows in batches:
        index = rows.numpy()
        batch = torch.from_numpy(pixels[index]).to(device)
        texts[index] = _on_cpu(network.text_vectors(text.take(rows).to(device), context))
        images[index] = _on_cpu(network.image_vectors(preprocessor.normalise(batch), context))
    return Encoding(texts, images)


def _on_cpu(vectors: Tensor) -> ndarray:
    array: ndarray = vectors.float().cpu().numpy()
    return array

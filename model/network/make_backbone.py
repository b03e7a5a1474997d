"""Backbones made from two pretrained towers: a dual encoder whose projections keep the geometry of the towers.

Transformers draws the projections of a dual encoder from a normal distribution with a standard deviation of 0.02. Here
they are orthogonal and scaled, so that tokens have components of about unit variance, and the cosines within a modality
stay those of the tower.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from transformers import VisionTextDualEncoderConfig, VisionTextDualEncoderModel

from model.artifact import write_folder
from model.config import MakeBackboneConfig
from model.data.prepared_data import Prepared
from model.errors import InputError
from model.records import Split

from .backbones import POOLING_KEY, Backbone, DualEncoderBackbone
from .image_cache import load_pictures
from .inputs import PictureInput, TextInput, Tokens
from .load_backbone import check_fit, refuse_misfit
from .pretrained_tower import Tower, load_image_tower, load_text_tower
from .processor import Preprocessor, TextFormat

MEASURED_ITEMS = 128
"""Number of items whose tokens determine the scale and the mean direction of the projections."""

MEASURED_AT_ONCE = 16

PROBE_TEXTS = ("a blue cotton shirt with long sleeves", "two friends travel through a cold country in winter")
"""Texts that determine the scale of the text projection if there is no prepared data."""


def make_backbone(config: MakeBackboneConfig) -> str:
    """Make a dual encoder from a text tower and an image tower, write it to `config.out`, and return the summary.

    Raises:
        InputError: `config.out` exists, or a tower or the prepared data cannot be used.
        ArtifactError: the prepared data is missing or damaged.
    """
    if config.out.exists():
        raise InputError(f"{config.out} exists. Choose another --out, or remove this file or folder.")
    torch.manual_seed(config.seed)
    prepared = None if config.prepared is None else Prepared.open(config.prepared)
    text, image = load_text_tower(config.text), load_image_tower(config.image)
    backbone, preprocessor = _join(config, text, image)
    texts, pictures = _probes(preprocessor) if prepared is None else _items(prepared, preprocessor)
    for layer, states in (
        (backbone.model.text_projection, _text_states(backbone, texts)),
        (backbone.model.visual_projection, _image_states(backbone, preprocessor, pictures)),
    ):
        layer.weight = nn.Parameter(_projection(states, backbone.dim, prepared is not None))
    with write_folder(config.out) as folder:
        backbone.model.save_pretrained(folder)
        preprocessor.tokenizer.save_pretrained(folder)
        preprocessor.image_processor.save_pretrained(folder)
    parameters = sum(weight.numel() for weight in backbone.parameters())
    return (
        f"Made a backbone with {parameters:,} parameters and vectors of length {backbone.dim}. It is in {config.out}. "
        f"Train it with `rcml train --backbone {config.out}`."
    )


def _join(config: MakeBackboneConfig, text: Tower, image: Tower) -> tuple[Backbone, Preprocessor]:
    """Join two towers, and record the summary of each tower and the width of the image tower in the config."""
    joint = VisionTextDualEncoderConfig.from_vision_text_configs(image.model.config, text.model.config)
    preprocessor = Preprocessor(
        text.processor, image.processor, TextFormat.of(joint, text.processor.model_max_length)
    )
    blank = preprocessor.normalise(preprocessor.blank(1))
    with torch.inference_mode(), refuse_misfit(config.image, "image processor"):
        out = image.model(pixel_values=blank.pixels)
    states = out.last_hidden_state
    convolutional = states.ndim == 4
    if not hasattr(joint.vision_config, "hidden_size"):  # convolutional towers have no common name for it
        joint.vision_config.hidden_size = states.shape[1 if convolutional else 2]
    pooled = getattr(out, "pooler_output", None) is not None
    unpooled = "mean" if convolutional else "first"
    setattr(joint.vision_config, POOLING_KEY, image.pooling or ("pooled" if pooled else unpooled))
    setattr(joint.text_config, POOLING_KEY, text.pooling)
    joint.projection_dim = config.dim or joint.text_config.hidden_size
    model = VisionTextDualEncoderModel(joint, vision_model=image.model, text_model=text.model)
    backbone = DualEncoderBackbone(model.eval())
    check_fit(f"{config.text} with {config.image}", backbone, preprocessor)
    return backbone, preprocessor


def _projection(states: Float[Tensor, "tokens width"], dim: int, centre: bool) -> Float[Tensor, "dim width"]:
    """Return an orthogonal matrix, scaled so that the mapped tokens `states` have a mean square of 1.

    With `centre`, it maps the mean direction of the tokens to zero. This has the effect of subtracting the mean, which
    all tokens of a tower share, but needs no bias (compare Mu & Viswanath 2018, arXiv 1702.01417).
    """
    width = states.shape[1]
    matrix = torch.eye(dim) if dim == width else nn.init.orthogonal_(torch.empty(dim, width))
    if centre:
        direction = nn.functional.normalize(states.mean(dim=0), dim=0)
        matrix = matrix - torch.outer(matrix @ direction, direction)
    scaled: Tensor = matrix / (states @ matrix.T).square().mean().sqrt()
    return scaled


def _text_states(backbone: Backbone, texts: TextInput) -> Float[Tensor, "tokens width"]:
    return _states(len(texts.ids), lambda rows: backbone.text_tokens(texts.take(rows)))


def _image_states(
    backbone: Backbone, preprocessor: Preprocessor, pictures: PictureInput
) -> Float[Tensor, "tokens width"]:
    return _states(
        len(pictures), lambda rows: backbone.image_tokens(preprocessor.normalise(pictures.take(rows)))
    )


@torch.no_grad()
def _states(count: int, encode: Callable[[Tensor], Tokens]) -> Float[Tensor, "tokens width"]:
    """Return all tokens of `count` texts or pictures, without padding."""
    encoded = (encode(rows) for rows in torch.arange(count).split(MEASURED_AT_ONCE))
    return torch.cat([tokens.states[tokens.mask] for tokens in encoded])


def _items(prepared: Prepared, preprocessor: Preprocessor) -> tuple[TextInput, PictureInput]:
    """Return the texts and pictures of training items, spread evenly over the catalogue."""
    rows = prepared.rows(Split.TRAIN)
    if not rows:
        raise InputError(f"{prepared.path} has no training items with a picture. Prepare more items.")
    items = [prepared.items[row] for row in rows[:: -(-len(rows) // MEASURED_ITEMS)]]
    paths: list[Path] = [prepared.path / item.picture for item in items]
    return preprocessor.tokenize([item.text for item in items]), load_pictures(preprocessor, paths)


def _probes(preprocessor: Preprocessor) -> tuple[TextInput, PictureInput]:
    """Return two texts and one picture of noise, which give the order of magnitude of the tokens."""
    pictures = preprocessor.blank(1)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    preprocessor.decode(Image.fromarray(noise), pictures, 0)
    return preprocessor.tokenize(list(PROBE_TEXTS)), pictures

"""Backbones made from two pretrained towers: a dual encoder whose projections keep the geometry of the towers.

Transformers draws the projections of a dual encoder from a normal distribution with a standard deviation of 0.02. Here
they are orthogonal, so the cosines within a modality stay those of the tower. What the tokens of a tower have in common
is measured and removed by the training (`TokenNorm`).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import VisionTextDualEncoderConfig, VisionTextDualEncoderModel

from model.artifact import write_folder
from model.config import MakeBackboneConfig
from model.errors import InputError

from .backbones import POOLING_KEY, Backbone, DualEncoderBackbone
from .load_backbone import check_fit, refuse_misfit
from .pretrained_tower import Tower, load_image_tower, load_text_tower
from .processor import Preprocessor, TextFormat


def make_backbone(config: MakeBackboneConfig) -> str:
    """Make a dual encoder from a text tower and an image tower, write it to `config.out`, and return the summary.

    Raises:
        InputError: `config.out` exists, or a tower cannot be used.
    """
    if config.out.exists():
        raise InputError(f"{config.out} exists. Choose another --out, or remove this file or folder.")
    torch.manual_seed(config.seed)
    text, image = load_text_tower(config.text), load_image_tower(config.image)
    backbone, preprocessor = _join(config, text, image)
    for layer in (backbone.model.text_projection, backbone.model.visual_projection):
        layer.weight = nn.Parameter(_orthogonal(*layer.weight.shape))
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


def _orthogonal(dim: int, width: int) -> Float[Tensor, "dim width"]:
    """Return a random orthogonal matrix; the identity if it is square."""
    return torch.eye(dim) if dim == width else nn.init.orthogonal_(torch.empty(dim, width))

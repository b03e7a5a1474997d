"""ImageBind's text and image towers from its released weights (Girdhar et al., 2023).

The layout is that of `imagebind_huge` in https://github.com/facebookresearch/ImageBind (imagebind/models). Both towers
are CLIP's with exact GELU and an epsilon of 1e-6. The image tower reads videos of two frames, and a picture is shown
twice. Its first convolution over two equal frames is the convolution with the sum of its two slices.
"""

from pathlib import Path

from torch import Tensor

from model.config import Device
from model.network.devices import choose_device

from .pretrained_towers import PretrainedTowers
from .released_processors import clip_preprocessor, clip_tokenizer
from .released_weights import Release, block_rules, renamed, text_config, vision_config
from .tower_system import TowerSystem

RELEASE = Release("ImageBind", "https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth")

HEADS = 16
"""Attention heads of both towers."""

PATCHES = "vision_model.embeddings.patch_embedding.weight"

RULES = (
    (
        r"modality_preprocessors\.text\.token_embedding\.weight",
        "text_model.embeddings.token_embedding.weight",
    ),
    (r"modality_preprocessors\.text\.pos_embed", "text_model.embeddings.position_embedding.weight"),
    *block_rules(r"modality_trunks\.text\.blocks", "text_model.encoder.layers", "norm_", "fc1", "fc2"),
    (r"modality_heads\.text\.proj\.0\.(weight|bias)", r"text_model.final_layer_norm.\1"),
    (r"modality_heads\.text\.proj\.1\.weight", "text_projection.weight"),
    (r"modality_preprocessors\.vision\.cls_token", "vision_model.embeddings.class_embedding"),
    (r"modality_preprocessors\.vision\.rgbt_stem\.proj\.1\.weight", PATCHES),
    (
        r"modality_preprocessors\.vision\.pos_embedding_helper\.pos_embed",
        "vision_model.embeddings.position_embedding.weight",
    ),
    (r"modality_trunks\.vision\.pre_transformer_layer\.0\.(weight|bias)", r"vision_model.pre_layrnorm.\1"),
    *block_rules(r"modality_trunks\.vision\.blocks", "vision_model.encoder.layers", "norm_", "fc1", "fc2"),
    (r"modality_heads\.vision\.0\.(weight|bias)", r"vision_model.post_layernorm.\1"),
    (r"modality_heads\.vision\.2\.weight", "visual_projection.weight"),
)


def open_imagebind(folder: Path, device: Device) -> TowerSystem:
    """Open ImageBind from a folder with its weights and the merges of CLIP's tokenizer.

    Raises:
        InputError: a file is missing or damaged, or the weights are not those of ImageBind.
    """
    weights = {name: _flat(name, weight) for name, weight in renamed(RELEASE.read(folder), RULES).items()}
    tokenizer = clip_tokenizer(folder)
    shared = {"num_attention_heads": HEADS, "hidden_act": "gelu", "layer_norm_eps": 1e-6}
    text, vision = text_config(weights, tokenizer, **shared), vision_config(weights, **shared)
    backbone = RELEASE.dual_encoder(vision, text, weights)
    side = vision.image_size
    assert isinstance(side, int)
    preprocessor = clip_preprocessor(tokenizer, text.max_position_embeddings, side)
    return PretrainedTowers(backbone, preprocessor, choose_device(device)).system(f"imagebind:{folder}")


def _flat(name: str, weight: Tensor) -> Tensor:
    """Remove the axes that the tower of `transformers` does not have."""
    if name == PATCHES:
        return weight.sum(dim=2)
    if name.endswith(("position_embedding.weight", "class_embedding")):
        return weight.squeeze()
    return weight

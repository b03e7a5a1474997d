"""DeCLIP with a ViT image tower and CLIP's text tower, from its released weights (Li et al., 2021).

The layout is that of https://github.com/Sense-GVT/DeCLIP (prototype/model). Both towers are CLIP's, except that the
text projection has a bias and the vocabulary has a mask token. The release with ResNet-50 is not supported.
"""

from pathlib import Path

from PIL import Image
from transformers import CLIPConfig, CLIPModel

from model.config import Device
from model.errors import InputError
from model.network.backbones import ClipBackbone
from model.network.devices import choose_device

from .pretrained_towers import PretrainedTowers
from .released_processors import IMAGENET_MEAN, IMAGENET_STD, clip_preprocessor, clip_tokenizer
from .released_weights import Release, block_rules, renamed, shape, text_config, vision_config
from .tower_system import TowerSystem

RELEASE = Release(
    "DeCLIP",
    "the table 'Our pretrain declip model (w text encoder)' of https://github.com/Sense-GVT/DeCLIP, row ViT-B32",
)

RESIZED_SIDE = 256
"""Length of the shorter side before the crop, in pixels."""

TEXT_HEADS = 8

VISION_HEAD_WIDTH = 64

TEXT_BIAS = "text_projection.bias"

RULES = (
    (r"encode_text\.token_embedding\.weight", "text_model.embeddings.token_embedding.weight"),
    (r"encode_text\.positional_embedding", "text_model.embeddings.position_embedding.weight"),
    *block_rules(r"encode_text\.transformer\.resblocks", "text_model.encoder.layers"),
    (r"encode_text\.ln_final\.(weight|bias)", r"text_model.final_layer_norm.\1"),
    (r"encode_text\.text_projection\.(weight|bias)", r"text_projection.\1"),
    (r"visual\.class_embedding", "vision_model.embeddings.class_embedding"),
    (r"visual\.conv1\.weight", "vision_model.embeddings.patch_embedding.weight"),
    (r"visual\.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    (r"visual\.ln_pre\.(weight|bias)", r"vision_model.pre_layrnorm.\1"),
    *block_rules(r"visual\.transformer\.resblocks", "vision_model.encoder.layers"),
    (r"visual\.ln_post\.(weight|bias)", r"vision_model.post_layernorm.\1"),
    (r"visual\.proj", "visual_projection.weight"),
)


def open_declip(folder: Path, device: Device) -> TowerSystem:
    """Open DeCLIP from a folder with its weights and the merges of CLIP's tokenizer.

    Raises:
        InputError: a file is missing or damaged, or the weights are not those of DeCLIP with a ViT.
    """
    released = RELEASE.read(folder)
    if "visual.layer1.0.conv1.weight" in released:
        raise InputError(
            f"{folder} contains DeCLIP with ResNet-50, which is not supported. Use the release ViT-B32."
        )
    weights = renamed(released, RULES)
    dim = shape(weights, TEXT_BIAS)[0]
    bias = weights.pop(TEXT_BIAS)
    shape(weights, "visual_projection.weight")
    weights["visual_projection.weight"] = weights["visual_projection.weight"].T.contiguous()
    tokenizer = clip_tokenizer(folder, "<|mask|>")
    text = text_config(weights, tokenizer, num_attention_heads=TEXT_HEADS)
    width = shape(weights, "vision_model.post_layernorm.weight")[0]
    vision = vision_config(weights, num_attention_heads=width // VISION_HEAD_WIDTH)
    model = CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=dim)
    )
    RELEASE.fill(model, weights)
    side = vision.image_size
    assert isinstance(side, int)
    preprocessor = clip_preprocessor(
        tokenizer,
        text.max_position_embeddings,
        side,
        size={"shortest_edge": RESIZED_SIDE},
        resample=Image.Resampling.BILINEAR,
        image_mean=IMAGENET_MEAN,
        image_std=IMAGENET_STD,
    )
    towers = PretrainedTowers(ClipBackbone(model), preprocessor, choose_device(device), bias)
    return towers.system(f"declip:{folder}")

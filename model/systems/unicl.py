"""UniCL with a Swin image tower and CLIP's text tower, from its released weights (Yang et al., 2022).

The layout is that of https://github.com/microsoft/UniCL (model, configs, data/build.py). The text tower is CLIP's with
an epsilon of 1e-12. The image vector is the mean over Swin's last patches. FocalNet, the other image tower there, is
not supported.
"""

import re
from collections import Counter
from pathlib import Path

from transformers import SwinConfig

from model.config import Device
from model.errors import InputError
from model.network.devices import choose_device

from .pretrained_towers import PretrainedTowers
from .released_processors import IMAGENET_MEAN, IMAGENET_STD, clip_preprocessor, clip_tokenizer
from .released_weights import Release, Weights, block_rules, renamed, shape, text_config
from .tower_system import TowerSystem

RELEASE = Release(
    "UniCL",
    "https://projects4jw.blob.core.windows.net/unicl/release/in21k_yfcc14m_gcc15m_swin_base.pth "
    "(or another release named in the README of https://github.com/microsoft/UniCL)",
)

SIDE = 224
"""Side length of the pictures, in pixels."""

RESIZED_SIDE = 256
"""Length of the shorter side before the crop, in pixels."""

TEXT_HEADS = 8

END = r"\.(weight|bias)"
BLOCK = r"image_encoder\.layers\.(\d+)\.blocks\.(\d+)"
TARGET = r"vision_model.encoder.layers.\1.blocks.\2"
BIAS_TABLE = "attention.relative_position_bias.relative_position_bias_table"

RULES = (
    (r"text_encoder\.token_embedding\.weight", "text_model.embeddings.token_embedding.weight"),
    (r"text_encoder\.positional_embedding", "text_model.embeddings.position_embedding.weight"),
    *block_rules(r"text_encoder\.resblocks", "text_model.encoder.layers"),
    (rf"text_encoder\.ln_final{END}", r"text_model.final_layer_norm.\1"),
    (r"text_projection", "text_projection.weight"),
    (rf"image_encoder\.patch_embed\.proj{END}", r"vision_model.embeddings.patch_embeddings.projection.\1"),
    (rf"image_encoder\.patch_embed\.norm{END}", r"vision_model.embeddings.norm.\1"),
    (rf"{BLOCK}\.norm1{END}", rf"{TARGET}.layernorm_before.\3"),
    (rf"{BLOCK}\.attn\.qkv{END}", rf"{TARGET}.attention.{{q_proj,k_proj,v_proj}}.\3"),
    (rf"{BLOCK}\.attn\.relative_position_bias_table", rf"{TARGET}.{BIAS_TABLE}"),
    (rf"{BLOCK}\.attn\.proj{END}", rf"{TARGET}.attention.o_proj.\3"),
    (rf"{BLOCK}\.norm2{END}", rf"{TARGET}.layernorm_after.\3"),
    (rf"{BLOCK}\.mlp\.(fc[12]){END}", rf"{TARGET}.mlp.\3.\4"),
    (
        rf"image_encoder\.layers\.(\d+)\.downsample\.(norm|reduction){END}",
        r"vision_model.encoder.layers.\1.downsample.\2.\3",
    ),
    (rf"image_encoder\.norm{END}", r"vision_model.layernorm.\1"),
    (r"image_projection", "visual_projection.weight"),
)


def open_unicl(folder: Path, device: Device) -> TowerSystem:
    """Open UniCL from a folder with its weights and the merges of CLIP's tokenizer.

    Raises:
        InputError: a file is missing or damaged, or the weights are not those of UniCL with Swin.
    """
    weights = renamed(RELEASE.read(folder), RULES)
    for name in ("text_projection.weight", "visual_projection.weight"):
        shape(weights, name)
        weights[name] = weights[name].T.contiguous()  # the release multiplies from the right
    tokenizer = clip_tokenizer(folder)
    text = text_config(
        weights, tokenizer, num_attention_heads=TEXT_HEADS, hidden_act="quick_gelu", layer_norm_eps=1e-12
    )
    backbone = RELEASE.dual_encoder(_swin_config(weights), text, weights)
    preprocessor = clip_preprocessor(
        tokenizer,
        text.max_position_embeddings,
        SIDE,
        size={"shortest_edge": RESIZED_SIDE},
        image_mean=IMAGENET_MEAN,
        image_std=IMAGENET_STD,
    )
    return PretrainedTowers(backbone, preprocessor, choose_device(device)).system(f"unicl:{folder}")


def _swin_config(weights: Weights) -> SwinConfig:
    """Derive the config of Swin from its renamed weights."""
    table = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.blocks\.\d+\." + re.escape(BIAS_TABLE))
    depths = Counter(int(match[1]) for name in weights if (match := table.fullmatch(name)))
    tables = [
        shape(weights, f"vision_model.encoder.layers.{stage}.blocks.0.{BIAS_TABLE}")
        for stage in sorted(depths)
    ]
    if not tables:
        raise InputError("The weights of UniCL have no Swin image tower. Use a release with Swin.")
    embedding = shape(weights, "vision_model.embeddings.patch_embeddings.projection.weight")
    return SwinConfig(
        image_size=SIDE,
        patch_size=embedding[-1],
        embed_dim=embedding[0],
        depths=[depths[stage] for stage in sorted(depths)],
        num_heads=[heads for _, heads in tables],
        window_size=(round(tables[0][0] ** 0.5) + 1) // 2,  # the table has (2 w - 1)^2 rows
    )

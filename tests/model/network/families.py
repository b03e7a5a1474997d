"""Tiny random models of every supported architecture, on disk in the format of `transformers`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertTokenizer,
    CLIPVisionConfig,
    DistilBertConfig,
    EfficientNetConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    Siglip2Config,
    Siglip2Model,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    ViTConfig,
)
from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from model.network.load_backbone import small_backbone
from model.network.processor import Preprocessor
from tests.model.planted import COLOURS, SHAPES, TINY

WORDS = (
    *COLOURS,
    *SHAPES,
    "a",
    "these",
    "two",
    "items",
    "have",
    "the",
    "same",
    "colour",
    "are",
    "of",
    "kind",
)
SIDE = 32
TEXT_LENGTH = 16
LAYERS: Mapping[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "initializer_range": 0.2,  # large enough that outputs differ clearly
}


def write_clip(folder: Path) -> PreTrainedModel:
    preprocessor = Preprocessor.train([f"{colour} {shape}" for colour in COLOURS for shape in SHAPES], TINY)
    model: PreTrainedModel = small_backbone(TINY, preprocessor).model
    model.save_pretrained(folder)
    preprocessor.save(folder)
    (folder / "text_format.json").unlink()  # transformers does not write this file
    return model


def write_siglip(folder: Path) -> PreTrainedModel:
    model = SiglipModel(SiglipConfig(text_config=text_shape(), vision_config=picture_shape()))
    model.save_pretrained(folder)
    word_tokenizer(padding_side="left").save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return model


def write_siglip2(folder: Path) -> PreTrainedModel:
    vision = {**LAYERS, "num_patches": 16, "patch_size": 8}
    model = Siglip2Model(Siglip2Config(text_config=text_shape(), vision_config=vision))
    model.save_pretrained(folder)
    symbols = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    Siglip2Tokenizer(vocab={symbol: row for row, symbol in enumerate(symbols)}).save_pretrained(folder)
    # Models on the Hub name GemmaTokenizer, but transformers loads Siglip2Tokenizer, which lowercases the text.
    described = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(described | {"tokenizer_class": "GemmaTokenizer"})
    )
    Siglip2ImageProcessorPil(patch_size=8, max_num_patches=12).save_pretrained(folder)
    return model


def write_dual_encoder(folder: Path) -> PreTrainedModel:
    model = dual_encoder(bert(), ViTConfig(**picture_shape()))
    model.save_pretrained(folder)
    write_dual_encoder_processors(folder)
    return model


def write_convolutional_dual_encoder(folder: Path) -> PreTrainedModel:
    model = dual_encoder(bert(), efficientnet(), width=32)
    enliven(model)
    model.save_pretrained(folder)
    write_dual_encoder_processors(folder)
    # Both options are unusual: pixels from -1 to 1, divided by the standard deviation twice.
    processor = EfficientNetImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, rescale_factor=1 / 127.5, rescale_offset=True, include_top=True
    )
    processor.save_pretrained(folder)
    return model


@torch.no_grad()
def enliven(model: PreTrainedModel) -> None:
    """Draw convolutions and batch norms that keep the size of their input, with random statistics.

    Otherwise the outputs of an untrained convolutional tower hardly depend on its input.
    """
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
        if isinstance(layer, torch.nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.uniform_(-0.5, 0.5)
            for positive in (layer.running_var, layer.weight):
                positive.uniform_(0.5, 1.5)


CONVOLUTIONAL = "vision-text-dual-encoder with a convolutional image tower"

FAMILIES: Mapping[str, Callable[[Path], PreTrainedModel]] = {
    "clip": write_clip,
    "siglip": write_siglip,
    "siglip2": write_siglip2,
    "vision-text-dual-encoder": write_dual_encoder,
    CONVOLUTIONAL: write_convolutional_dual_encoder,
}
"""Functions by model type. Each writes a random model of its type into a folder and returns the model."""


def dual_encoder(
    text: PreTrainedConfig, vision: PreTrainedConfig, width: int | None = None
) -> PreTrainedModel:
    """Build a random dual encoder; `width` is that of an image tower whose config does not have it as hidden_size."""
    config: Any = VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=24)
    if width is not None:
        config.vision_config.hidden_size = width
    model: PreTrainedModel = VisionTextDualEncoderModel(config).eval()
    return model


def write_dual_encoder_processors(folder: Path, **options: Any) -> None:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    BertTokenizer(vocab={word: row for row, word in enumerate(vocabulary)}, **options).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def bert() -> PreTrainedConfig:
    return BertConfig(vocab_size=len(WORDS) + 5, max_position_embeddings=TEXT_LENGTH, **LAYERS)


def distilbert() -> PreTrainedConfig:
    """Return the config of a text tower without a pooled output."""
    return DistilBertConfig(
        vocab_size=len(WORDS) + 5,
        max_position_embeddings=TEXT_LENGTH,
        dim=32,
        hidden_dim=64,
        n_heads=2,
        n_layers=1,
    )


def efficientnet() -> PreTrainedConfig:
    """Return the config of a convolutional image tower that makes 4 x 4 tokens of width 32."""
    return EfficientNetConfig(
        in_channels=[32, 32],
        out_channels=[320, 320],
        kernel_sizes=[3, 3],
        strides=[2, 2],
        num_block_repeats=[1, 1],
        expand_ratios=[1, 2],
        width_coefficient=0.025,
        depth_coefficient=1.0,
        hidden_dim=32,
    )


def roberta() -> PreTrainedConfig:
    """Return the config of a text tower that numbers positions from 2."""
    return RobertaConfig(
        vocab_size=len(WORDS) + 5, max_position_embeddings=TEXT_LENGTH + 2, pad_token_id=1, **LAYERS
    )


def clip_vision() -> PreTrainedConfig:
    """Return the config of an image tower that returns its tokens before the last layer norm."""
    return CLIPVisionConfig(**picture_shape())


def picture_shape() -> dict[str, Any]:
    return {**LAYERS, "image_size": SIDE, "patch_size": 16}


def text_shape() -> dict[str, Any]:
    ids = {"pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 1}
    return {**LAYERS, **ids, "vocab_size": 64, "max_position_embeddings": TEXT_LENGTH, "projection_size": 32}


def word_tokenizer(**options: Any) -> PreTrainedTokenizerFast:
    """Build a tokenizer with one token per word, then EOS, which is also the padding token, as in SigLIP."""
    words = {word: row for row, word in enumerate(("<unk>", "</s>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", pad_token="</s>", **options
    )


def write_family(kind: str, folder: Path) -> PreTrainedModel:
    """Write a random model of type `kind`, with the same weights at every call."""
    torch.manual_seed(5)
    model: PreTrainedModel = FAMILIES[kind](folder).eval()
    return model

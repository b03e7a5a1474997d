"""Backbones loaded from a local folder or the Hub, rebuilt from a config, or created as a small CLIP."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from model.checkpoint.hub import check_reached, is_local
from model.config import SmallBackbone
from model.errors import InputError

from .backbone_config import checked_config, read_config, shortened
from .backbones import BACKBONES, Backbone, ClipBackbone
from .inputs import Tokens
from .processor import MAX_TOKENS, Preprocessor


def load_backbone(name: str | Path) -> tuple[Backbone, Preprocessor]:
    """Load a backbone with its tokenizer and image processor from a local folder or the Hub.

    Raises:
        InputError: nothing can be loaded, the architecture is not supported, or the weights do not match it.
    """
    try:
        config = read_config(name)
        model_class, backbone_class = BACKBONES[config.model_type]
        model, report = model_class.from_pretrained(
            name,
            config=config,
            dtype=torch.float32,  # used for training, regardless of the stored data type
            local_files_only=is_local(name),
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # weights of the wrong size are rejected below
            output_loading_info=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        check_reached(name, error)
        raise InputError(
            f"No backbone could be loaded from {str(name)!r}: {shortened(error)} "
            "Provide a local folder in the transformers format (with model.safetensors) or a Hub repository."
        ) from None
    check_weights(str(name), report)
    backbone, preprocessor = backbone_class(model), Preprocessor.load(name)
    check_fit(str(name), backbone, preprocessor)
    return backbone, preprocessor


def check_weights(name: str, report: Mapping[str, Any], unused: str | None = None) -> None:
    """Reject a model if some weights were missing or of the wrong size, according to the loading `report`.

    Weights whose name starts with `unused` may be missing.

    Raises:
        InputError: the weights do not match the config.
    """
    faults = [
        f"{key} is missing"
        for key in sorted(report["missing_keys"])
        if unused is None or not key.startswith(unused)
    ]
    faults += [
        f"{key} is {list(found)} instead of {list(wanted)}"
        for key, found, wanted in sorted(report["mismatched_keys"])
    ]
    if faults:
        raise InputError(
            f"The weights in {name!r} do not match its config.json: {'; '.join(faults[:3])}"
            f"{f'; and {len(faults) - 3} more' if len(faults) > 3 else ''}. Save the complete model again."
        )


def build_backbone(config: Mapping[str, Any]) -> Backbone:
    """Build the backbone that `config` describes, with random weights.

    Raises:
        InputError: the architecture is not supported, or the config is invalid.
    """
    checked = checked_config(config, "network.json")
    model_class, backbone_class = BACKBONES[checked.model_type]
    return backbone_class(model_class(checked))


def check_fit(name: str, backbone: Backbone, preprocessor: Preprocessor) -> None:
    """Reject processors of another model, which would otherwise fail during training; `name` is for error messages.

    Raises:
        InputError: a tower cannot process the output of its processor.
    """
    known = backbone.model.config.text_config.vocab_size
    if preprocessor.vocabulary > known:
        raise InputError(
            f"The tokenizer in {name!r} has {preprocessor.vocabulary} tokens, but the text tower supports only "
            f"{known}. Use the tokenizer that the text tower was trained with."
        )
    room = preprocessor.blank(1)
    preprocessor.decode(Image.new("RGB", (64, 64)), room, 0)
    reading: Mapping[str, Callable[[], Tokens]] = {
        "tokenizer": lambda: backbone.text_tokens(preprocessor.tokenize(["a"])),
        "image processor": lambda: backbone.image_tokens(preprocessor.normalise(room)),
    }
    for processor, read in reading.items():
        with torch.inference_mode(), refuse_misfit(name, processor):
            read()


@contextmanager
def refuse_misfit(name: str, processor: str) -> Iterator[None]:
    """Raise an `InputError` if the model `name` cannot process the output of its `processor` in the block."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"The model in {name!r} cannot process the output of its {processor}: {shortened(error)} "
            "Use the tokenizer and the image processor that the model was trained with."
        ) from None


def small_backbone(shape: SmallBackbone, preprocessor: Preprocessor) -> Backbone:
    """Build a CLIP of the given shape with random weights from torch's global generator."""
    common: dict[str, Any] = {
        "hidden_size": shape.width,
        "intermediate_size": 4 * shape.width,
        "num_attention_heads": max(1, shape.width // 32),
        "projection_dim": shape.width,
    }
    text = CLIPTextConfig(
        vocab_size=preprocessor.vocabulary,
        max_position_embeddings=MAX_TOKENS,
        num_hidden_layers=shape.text_layers,
        **common,
        **preprocessor.special_ids,
    )
    vision = CLIPVisionConfig(
        image_size=shape.image_size,
        patch_size=shape.patch_size,
        num_hidden_layers=shape.image_layers,
        **common,
    )
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=shape.width
    )
    return ClipBackbone(CLIPModel(config))

"""Pretrained text and image towers: single models in a folder or on the Hub, each with its tokenizer or processor."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoModel, AutoTokenizer, PreTrainedConfig
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.utils.hub import cached_file

from model.checkpoint.hub import check_reached, is_local
from model.errors import InputError

from .backbone_config import shortened
from .load_backbone import check_weights

Modality = Literal["text", "image"]

MODEL_INPUTS: Mapping[Modality, str] = {"text": "input_ids", "image": "pixel_values"}
"""Main input of a model of each modality, by its name in transformers."""

EXAMPLES: Mapping[Modality, str] = {
    "text": "BERT, MPNet or any sentence-transformers model",
    "image": "ViT, DINOv2, Swin, ConvNeXt, ResNet or EfficientNet",
}

TRAINED_SUMMARIES = frozenset({"clip_text_model", "siglip_text_model", "siglip2_text_model"})
"""Model types of text towers whose pooled output was trained to represent the whole text."""

SENTENCE_POOLINGS = {"cls": "first", "cls_token": "first", "mean": "mean", "mean_tokens": "mean"}
"""Names of poolings in sentence-transformers, and the names of the same summaries here."""

SENTENCE_MODULES = frozenset({"Transformer", "Pooling", "Normalize"})
"""Modules of sentence-transformers that the summary of a tower can represent; cosines are not affected by Normalize."""


@dataclass(frozen=True)
class Tower:
    """One tower in float32 with its tokenizer or image processor.

    `pooling` is its summary (`backbones.POOLINGS`), or None if its output decides.
    """

    model: Any
    processor: Any
    pooling: str | None


def load_text_tower(name: str) -> Tower:
    """Load a text tower and its tokenizer from a local folder or the Hub.

    The summary is the one that a sentence-transformers folder states. For other towers it is the mean of the tokens,
    because language models do not train their pooled output to represent a text (Reimers & Gurevych 2019, table 1).

    Raises:
        InputError: there is no text tower with a tokenizer, or its weights or its pooling cannot be used.
    """
    model, _ = _load_model(name, "text")
    pooling = "pooled" if model.config.model_type in TRAINED_SUMMARIES else "mean"
    return Tower(model, _load_tokenizer(name), _sentence_pooling(name) or pooling)


def load_image_tower(name: str) -> Tower:
    """Load an image tower and its image processor from a local folder or the Hub.

    Raises:
        InputError: there is no image tower with an image processor, or its weights cannot be used.
    """
    model, pooler = _load_model(name, "image")
    try:
        processor = AutoImageProcessor.from_pretrained(
            name, backend="pil", local_files_only=is_local(name), trust_remote_code=False
        )
    except (ImportError, OSError, ValueError) as error:
        check_reached(name, error)
        raise InputError(
            f"No image processor could be loaded from {name!r}: {shortened(error)} "
            "Add the preprocessor_config.json that the image tower was trained with."
        ) from None
    return Tower(model, processor, None if pooler else "first")


def _load_model(name: str, modality: Modality) -> tuple[Any, bool]:
    """Load the model, and return it and whether its pooled output, if any, has trained weights."""
    options = {"local_files_only": is_local(name), "trust_remote_code": False}
    try:
        if is_local(name) and not Path(name).is_dir():
            raise FileNotFoundError("there is no such folder.")
        if not PreTrainedConfig.get_config_dict(name, local_files_only=is_local(name))[0]:
            raise FileNotFoundError("config.json is missing.")
        model, report = AutoModel.from_pretrained(
            name,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # weights of the wrong size are rejected below
            output_loading_info=True,
            **options,
        )
    except (ImportError, OSError, ValueError, KeyError, SafetensorError, StrictDataclassError) as error:
        check_reached(name, error)
        remedy = (
            "Save the tower as model.safetensors; pickled weights (pytorch_model.bin) are not loaded, because they can "
            "run code."
            if (Path(name) / "pytorch_model.bin").is_file()
            else f"Give the folder or the Hub name of {_tower(modality)} ({EXAMPLES[modality]}) with config.json and "
            "model.safetensors."
        )
        raise InputError(
            f"No {modality} tower could be loaded from {name!r}: {shortened(error)} {remedy}"
        ) from None
    _check_modality(name, model, modality)
    check_weights(name, report, unused="pooler.")
    if is_local(name):
        model.config.name_or_path = ""  # a saved config would contain the path
    return model.eval(), not report["missing_keys"]


def _check_modality(name: str, model: Any, modality: Modality) -> None:
    config = model.config
    if hasattr(config, "text_config") and hasattr(config, "vision_config"):
        raise InputError(
            f"{name!r} has both towers ({config.model_type}), so it is not {_tower(modality)}. Train on it directly "
            f"with `rcml train --backbone`, or give {_tower(modality)} ({EXAMPLES[modality]})."
        )
    if model.main_input_name != MODEL_INPUTS[modality] or config.is_encoder_decoder:
        found = "has a decoder" if config.is_encoder_decoder else f"reads {model.main_input_name}"
        raise InputError(
            f"{name!r} is not {_tower(modality)}: its model ({config.model_type}) {found}. "
            f"Give {_tower(modality)} ({EXAMPLES[modality]}) with --{modality}."
        )


def _load_tokenizer(name: str) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, local_files_only=is_local(name), trust_remote_code=False
        )
    except (ImportError, OSError, ValueError) as error:
        check_reached(name, error)
        raise _no_tokenizer(name, shortened(error)) from None
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # transformers then invents an empty tokenizer
        raise _no_tokenizer(name, "it has no vocabulary.")
    limit = (_read(name, "sentence_bert_config.json") or {}).get("max_seq_length")
    if limit is not None:
        tokenizer.model_max_length = min(limit, tokenizer.model_max_length)
    return tokenizer


def _no_tokenizer(name: str, reason: str) -> InputError:
    return InputError(
        f"No tokenizer could be loaded from {name!r}: {reason} "
        "Add the tokenizer.json and tokenizer_config.json that the text tower was trained with."
    )


def _sentence_pooling(name: str) -> str | None:
    """Return the summary that a sentence-transformers folder states, or None for any other folder."""
    modules = {
        module["type"].rpartition(".")[2]: module["path"] for module in _read(name, "modules.json") or ()
    }
    if unknown := sorted(modules.keys() - SENTENCE_MODULES):
        raise InputError(
            f"The text tower in {name!r} ends with {', '.join(unknown)}, which a backbone cannot apply to every token. "
            "Use a tower that ends with its pooling, or delete this module from modules.json."
        )
    if "Pooling" not in modules:
        return None
    config = _read(name, f"{modules['Pooling']}/config.json") or {}
    stated = config.get("pooling_mode") or [
        key.removeprefix("pooling_mode_")
        for key, on in config.items()
        if key.startswith("pooling_mode_") and on
    ]
    stated = [stated] if isinstance(stated, str) else stated
    if len(stated) != 1 or stated[0] not in SENTENCE_POOLINGS:
        raise InputError(
            f"The text tower in {name!r} has the pooling {', '.join(stated) or 'none'}. "
            "Use a tower that pools by the mean of its tokens or by its first token."
        )
    return SENTENCE_POOLINGS[stated[0]]


def _read(name: str, file: str) -> Any:
    """Return the content of a JSON file of a tower, or None if there is no such file."""
    found = cached_file(
        name, file, local_files_only=is_local(name), _raise_exceptions_for_missing_entries=False
    )
    return None if found is None else json.loads(Path(found).read_text("utf-8"))


def _tower(modality: Modality) -> str:
    return "a text tower" if modality == "text" else "an image tower"

"""The `config.json` of a backbone: read from a folder or the Hub, and validated before a model is built from it."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from model.checkpoint.hub import is_local
from model.errors import InputError

from .backbones import BACKBONES, POOLING_KEY, POOLINGS

MAX_ERROR_CHARACTERS = 300
"""Maximum number of characters quoted from an error message of another library."""


def read_config(name: str | Path) -> PreTrainedConfig:
    """Read and validate the `config.json` of a model in a local folder or on the Hub.

    Raises:
        OSError: there is no `config.json`.
        InputError: the architecture is not supported, or the config is invalid.
    """
    config, _ = PreTrainedConfig.get_config_dict(name, local_files_only=is_local(name))
    if not config:
        raise FileNotFoundError("config.json is missing.")
    return checked_config(config, repr(str(name)))


def checked_config(config: Mapping[str, Any], source: str) -> PreTrainedConfig:
    """Validate a raw `config` and convert it to its `transformers` class; `source` names it in error messages.

    Raises:
        InputError: the architecture is not supported, or the config is invalid.
    """
    kind: Any = config.get("model_type")
    if kind not in BACKBONES:
        raise InputError(
            f"The model type {kind!r} in {source} is not supported. "
            f"Use a model of one of these types: {', '.join(BACKBONES)}."
        )
    try:
        checked: PreTrainedConfig = BACKBONES[kind][0].config_class.from_dict(dict(config))
    except (StrictDataclassError, ValueError, KeyError) as error:
        raise InputError(
            f"The config in {source} is invalid. Fix this error and try again: {shortened(error)}"
        ) from None
    for tower in (checked.text_config, checked.vision_config):
        if not hasattr(tower, "hidden_size"):
            raise InputError(
                f"The tower {tower.model_type!r} in {source} has no hidden_size, so the width of its tokens is "
                "unknown. Make the backbone with `rcml backbone make`, which records the width."
            )
        pooling = getattr(tower, POOLING_KEY, None)
        if pooling not in (None, *POOLINGS):
            raise InputError(
                f"The tower {tower.model_type!r} in {source} has {POOLING_KEY} {pooling!r}. "
                f"Use one of {', '.join(POOLINGS)}."
            )
    return checked


def shortened(error: Exception) -> str:
    """Return the error message of another library, shortened to one line."""
    return textwrap.shorten(str(error), MAX_ERROR_CHARACTERS, placeholder=" ...")

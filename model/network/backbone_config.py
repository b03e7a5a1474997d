"""The `config.json` of a backbone: read from a folder or the Hub, and checked before anything is built from it."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from model.checkpoint.hub import is_local
from model.errors import InputError

from .backbones import BACKBONES

MAX_ERROR_CHARACTERS = 300
"""Of an error of another library that is quoted in one of ours."""


def read_config(name: str | Path) -> PreTrainedConfig:
    """Read and check the `config.json` of the model in a local folder, or of this name on the Hub.

    Raises:
        OSError: there is none.
        InputError: an architecture that is not supported, or a config that is wrong.
    """
    config, _ = PreTrainedConfig.get_config_dict(name, local_files_only=is_local(name))
    if not config:
        raise FileNotFoundError("It has no config.json.")
    return checked_config(config, repr(str(name)))


def checked_config(config: Mapping[str, Any], source: str) -> PreTrainedConfig:
    """Turn a raw `config` into its class of transformers; `source` names it in errors.

    Raises:
        InputError: an architecture that is not supported, or a config that is wrong.
    """
    kind: Any = config.get("model_type")
    if kind not in BACKBONES:
        raise InputError(
            f"The model of {source} is of the type {kind!r}, which is not supported. "
            f"Supported types: {', '.join(BACKBONES)}."
        )
    try:
        checked: PreTrainedConfig = BACKBONES[kind][0].config_class.from_dict(dict(config))
    except (StrictDataclassError, ValueError, KeyError) as error:
        raise InputError(f"The config of {source} is wrong: {shortened(error)}") from None
    for tower in (checked.text_config, checked.vision_config):
        if not hasattr(tower, "hidden_size"):
            raise InputError(
                f"The tower {tower.model_type!r} of {source} gives no tokens of one width (it has no hidden_size), "
                "so relations would have nothing to choose from; name a transformer."
            )
    return checked


def shortened(error: Exception) -> str:
    """Quote an error of another library on one line."""
    return textwrap.shorten(str(error), MAX_ERROR_CHARACTERS, placeholder=" ...")

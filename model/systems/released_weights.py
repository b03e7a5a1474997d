"""Weights of models released as state dicts: read without pickle, and renamed to the classes of `transformers`.

A `.pth` or `.pt` file is a pickle, which can run any code when it is loaded. These files are read with torch's
`weights_only=True`, which builds nothing but tensors and plain containers and rejects everything else.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
    PreTrainedConfig,
    PreTrainedModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)
from transformers.initialization import no_init_weights

from model.errors import InputError
from model.network.backbone_config import shortened
from model.network.backbones import DualEncoderBackbone

Weights = Mapping[str, Tensor]
Rule = tuple[str, str]

SUFFIXES = (".safetensors", ".pth", ".pt", ".tar")
"""Suffixes of files with weights. The first that occurs in the folder is read."""


@dataclass(frozen=True)
class Release:
    """Name of a released model, and where its weights can be downloaded."""

    name: str
    source: str

    def read(self, folder: Path) -> dict[str, Tensor]:
        """Read the weights in `folder` in single precision.

        The weights may be nested under `model` or `state_dict`, and their names may start with `module.`.

        Raises:
            InputError: there is no file, there are several, or it contains more than weights.
        """
        for suffix in SUFFIXES:
            files = sorted(folder.glob(f"*{suffix}"))
            if len(files) > 1:
                names = ", ".join(file.name for file in files)
                raise InputError(f"{folder} contains several files with weights: {names}. Keep only one.")
            if files:
                loaded = self._load(files[0])
                break
        else:
            raise InputError(
                f"{folder} contains no weights of {self.name} ({', '.join(SUFFIXES)}). Download them from "
                f"{self.source} into this folder."
            )
        for key in ("model", "state_dict"):
            if isinstance(loaded.get(key), Mapping):
                loaded = loaded[key]
        return {
            name.removeprefix("module."): value.float()
            for name, value in loaded.items()
            if torch.is_tensor(value)
        }

    def _load(self, file: Path) -> Mapping[str, Any]:
        try:
            if file.suffix == ".safetensors":
                return load_file(file)
            loaded: Mapping[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            return loaded
        except UnpicklingError as error:
            raise InputError(
                f"{file} contains more than weights, and loading it could run code: {shortened(error)} "
                "If you trust its source, load it in an isolated environment and save only its weights as safetensors."
            ) from None
        except (OSError, RuntimeError, EOFError, SafetensorError) as error:
            raise InputError(
                f"{file} cannot be read: {shortened(error)} Download it again from {self.source}."
            ) from None

    def fill(self, model: PreTrainedModel, weights: Weights) -> None:
        """Copy renamed weights into a model of `transformers`.

        Raises:
            InputError: a weight is missing, unknown, or of the wrong size.
        """
        unused = {"logit_scale": model.logit_scale}  # no feature depends on it
        try:
            model.load_state_dict({**weights, **unused})
        except RuntimeError as error:
            raise InputError(
                f"The weights do not match the released {self.name}: {shortened(error)} "
                f"Download them again from {self.source}."
            ) from None

    def dual_encoder(
        self, vision: PreTrainedConfig, text: PreTrainedConfig, weights: Weights
    ) -> DualEncoderBackbone:
        """Build two towers that are projected into the joint space without a bias; see `fill`."""
        config = VisionTextDualEncoderConfig.from_vision_text_configs(
            vision, text, projection_dim=shape(weights, "text_projection.weight")[0]
        )
        with no_init_weights():  # random weights of ImageBind would take minutes
            model = VisionTextDualEncoderModel(config)
        self.fill(model, weights)
        return DualEncoderBackbone(model)


def renamed(weights: Weights, rules: Iterable[Rule]) -> dict[str, Tensor]:
    """Rename weights by the first rule whose pattern matches the whole name, and drop those without one.

    If the new name contains alternatives in braces (`{q_proj,k_proj,v_proj}`), the weight is split among them.
    """
    compiled = [(re.compile(pattern), template) for pattern, template in rules]
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        for pattern, template in compiled:
            match = pattern.fullmatch(name)
            if match:
                before, *parts = re.split(r"[{}]", match.expand(template))
                if parts:
                    names = parts[0].split(",")
                    found |= {
                        before + part + parts[1]: chunk
                        for part, chunk in zip(names, weight.chunk(len(names)), strict=True)
                    }
                else:
                    found[before] = weight
                break
    return found


def block_rules(
    source: str, target: str, norm: str = "ln_", up: str = "c_fc", down: str = "c_proj"
) -> tuple[Rule, ...]:
    """Return the rules for transformer blocks built on `nn.MultiheadAttention`; the defaults are OpenAI's names.

    `source` is a pattern without groups for the names of the blocks, `target` the name in `transformers`.
    """
    end = r"\.(weight|bias)"
    return (
        (
            rf"{source}\.(\d+)\.attn\.in_proj_(weight|bias)",
            rf"{target}.\1.self_attn.{{q_proj,k_proj,v_proj}}.\2",
        ),
        (rf"{source}\.(\d+)\.attn\.out_proj{end}", rf"{target}.\1.self_attn.out_proj.\2"),
        (rf"{source}\.(\d+)\.{norm}([12]){end}", rf"{target}.\1.layer_norm\2.\3"),
        (rf"{source}\.(\d+)\.mlp\.{up}{end}", rf"{target}.\1.mlp.fc1.\2"),
        (rf"{source}\.(\d+)\.mlp\.{down}{end}", rf"{target}.\1.mlp.fc2.\2"),
    )


def text_config(weights: Weights, tokenizer: CLIPTokenizer, **options: Any) -> CLIPTextConfig:
    """Derive the config of a CLIP text tower from its renamed weights; `options` are the values that they lack.

    Raises:
        InputError: a weight is missing, or the tokenizer has another vocabulary.
    """
    prefix = "text_model."
    tokens = shape(weights, prefix + "embeddings.token_embedding.weight")[0]
    if tokens != len(tokenizer):
        raise InputError(
            f"The text tower has {tokens} tokens, but the tokenizer has {len(tokenizer)}. Use the merges and the "
            "weights of the same release."
        )
    return CLIPTextConfig(
        vocab_size=tokens,
        max_position_embeddings=shape(weights, prefix + "embeddings.position_embedding.weight")[0],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **_layers(weights, prefix),
        **options,
    )


def vision_config(weights: Weights, **options: Any) -> CLIPVisionConfig:
    """Derive the config of a CLIP image tower from its renamed weights; `options` are the values that they lack."""
    prefix = "vision_model."
    patch = shape(weights, prefix + "embeddings.patch_embedding.weight")[-1]
    positions = shape(weights, prefix + "embeddings.position_embedding.weight")[0]
    return CLIPVisionConfig(
        patch_size=patch,
        image_size=patch * round((positions - 1) ** 0.5),
        **_layers(weights, prefix),
        **options,
    )


def _layers(weights: Weights, prefix: str) -> dict[str, Any]:
    inner, width = shape(weights, prefix + "encoder.layers.0.mlp.fc1.weight")
    last = re.compile(re.escape(prefix) + r"encoder\.layers\.(\d+)\.mlp\.fc1\.weight")
    layers = sum(1 for name in weights if last.fullmatch(name))
    return {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers}


def shape(weights: Weights, name: str) -> tuple[int, ...]:
    """Return the shape of a renamed weight.

    Raises:
        InputError: the weight is missing.
    """
    if name not in weights:
        raise InputError(
            f"The released weights lack {name} (name in transformers). Use a complete release with both towers."
        )
    return tuple(weights[name].shape)

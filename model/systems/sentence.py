"""Sentence-embedding models in the format of sentence-transformers, read with `transformers` alone (text only).

The format adds to a model of `transformers` the files `modules.json` (a list of steps), `1_Pooling/config.json` and
`sentence_bert_config.json` (the maximum length).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from model.config import Device
from model.errors import InputError
from model.network.backbone_config import shortened
from model.network.devices import choose_device

from .tower_system import TowerSystem

STEPS = {"Transformer", "Pooling", "Normalize"}
"""Supported steps. The vectors are always normalised, so the last one changes nothing."""

OLD_POOLING = {"mean_tokens": "mean", "cls_token": "cls"}
"""Names of poolings in the older format that differ from the newer one."""


class SentenceTower:
    """Text tower whose vector is pooled from its last states by `pooling`: mean, cls or lasttoken."""

    def __init__(
        self, model: Any, tokenizer: Any, pooling: str, max_tokens: int, device: torch.device
    ) -> None:
        self._model = model.eval().to(device)
        self._tokenizer = tokenizer
        self._pooling = pooling
        self._max_tokens = max_tokens
        self._device = device
        self.dim: int = model.config.hidden_size
        self.room = max_tokens - len(tokenizer("")["input_ids"])

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(weight.numel() for weight in self._model.parameters())

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, without special tokens."""
        return [len(ids) for ids in self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
        """Return the pooled states of the texts."""
        encoded = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        ).to(self._device)
        return pooled(
            self._model(**encoded).last_hidden_state, encoded["attention_mask"].bool(), self._pooling
        )


def pooled(
    states: Float[Tensor, "texts tokens dim"], mask: Bool[Tensor, "texts tokens"], pooling: str
) -> Float[Tensor, "texts dim"]:
    """Pool the states of real tokens, on whichever side the padding is."""
    if pooling == "mean":
        return (states * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    places = mask.int().argmax(dim=1)
    if pooling == "lasttoken":
        places = places + mask.sum(dim=1) - 1
    return states[torch.arange(len(states), device=states.device), places]


def open_sentence(folder: Path, device: Device) -> TowerSystem:
    """Open a sentence-embedding model in a local folder.

    Raises:
        InputError: the folder is incomplete, or the model has steps or a pooling that are not supported.
    """
    try:
        steps = [step["type"].rpartition(".")[2] for step in _read(folder / "modules.json")]
        pooling = _pooling(_read(folder / "1_Pooling" / "config.json"))
        limits = folder / "sentence_bert_config.json"
        limit = _read(limits).get("max_seq_length") if limits.is_file() else None
        options = {"local_files_only": True, "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model = AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, **options)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(
            f"No sentence-embedding model could be loaded from {folder}: {shortened(error)} Provide a folder in the "
            "format of sentence-transformers, with model.safetensors."
        ) from None
    if set(steps) - STEPS or pooling not in {"mean", "cls", "lasttoken"}:
        raise InputError(
            f"The model in {folder} has the steps {', '.join(steps)} and the pooling {pooling}. Use a model with the "
            f"steps {', '.join(sorted(STEPS))} and the pooling mean, cls or lasttoken."
        )
    positions = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", 512))
    tower = SentenceTower(model, tokenizer, pooling, limit or positions, choose_device(device))
    return TowerSystem(f"sentence:{folder}", tower, None, tower.parameters)


def _read(path: Path) -> Any:
    return json.loads(path.read_bytes())


def _pooling(config: dict[str, Any]) -> str:
    """Return the pooling named by `pooling_mode`, or by the only true flag of the older format."""
    if "pooling_mode" in config:
        return str(config["pooling_mode"])
    flags = [name.removeprefix("pooling_mode_") for name, value in config.items() if value is True]
    return ", ".join(OLD_POOLING.get(flag, flag) for flag in flags)

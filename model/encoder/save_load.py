"""The network and the processors of a checkpoint: located, loaded, and written into a draft."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.artifact import Draft, file_digest
from model.checkpoint.checkpoint import OWN_FILES, WEIGHTS_FILE, Checkpoint
from model.checkpoint.hub import fetch, is_local
from model.errors import ArtifactError, InputError
from model.network.network import Network, NetworkConfig
from model.network.processor import Preprocessor

NAMED_FAULTS = 8
"""Weights that do not fit and are named in the error; of more, the number."""


@dataclass(frozen=True)
class Source:
    """The checkpoint that an encoder was loaded from.

    `processor_files` are the files of its tokenizer and image processor, as they were read: saved by transformers,
    they would get what they were used for added, and the version of transformers.
    """

    checkpoint: Checkpoint
    processor_files: Mapping[str, bytes]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the checkpoint at `folder`.

        Raises:
            ArtifactError: there is none, or it is damaged.
        """
        checkpoint = Checkpoint.open(folder)
        others = checkpoint.manifest.files.keys() - OWN_FILES
        return cls(checkpoint, {file: (folder / file).read_bytes() for file in others})

    def has_weights_of(self, draft: Draft) -> bool:
        """Compare the weights written into `draft` with those that were loaded."""
        return file_digest(draft.path / WEIGHTS_FILE) == self.checkpoint.manifest.files[WEIGHTS_FILE].sha256


def locate(source: str | Path, revision: str | None) -> Path:
    """Return the folder that `source` names, fetching a Hub name (`owner/name`) at `revision` first.

    A `Path` is always a folder, and so is a string that could be one.

    Raises:
        ArtifactError: the Hub has no such checkpoint, or it cannot be fetched.
        InputError: a folder is asked for by revision.
    """
    if isinstance(source, Path) or is_local(source) or "/" not in source:
        if revision is not None:
            raise InputError(f"{source} is a folder, which has no revision {revision!r}; leave it out.")
        return Path(source)
    return fetch(source, revision)


def load_network(folder: Path) -> Network:
    """Load the network of the checkpoint at `folder`, ready to encode, with exactly the weights saved.

    Raises:
        ArtifactError: the weights are not those of the network.
    """
    try:
        config = NetworkConfig.model_validate_json((folder / "network.json").read_bytes())
        weights = load_file(folder / WEIGHTS_FILE)
    except (ValidationError, SafetensorError) as error:
        raise ArtifactError(
            f"The network in {folder} cannot be read by this version of rcml: {error}"
        ) from None
    network = Network.from_config(config)
    expected = network.state_dict()
    wrong = [f"{name} is missing" for name in expected.keys() - weights.keys()]
    wrong += [f"{name} is not known" for name in weights.keys() - expected.keys()]
    wrong += [
        f"{name} is {_shape(weights[name])} instead of {_shape(expected[name])}"
        for name in expected.keys() & weights.keys()
        if _shape(weights[name]) != _shape(expected[name])
    ]
    if wrong:
        more = f"; and {len(wrong) - NAMED_FAULTS} more" if len(wrong) > NAMED_FAULTS else ""
        raise ArtifactError(
            f"{folder / WEIGHTS_FILE} does not fit network.json: {'; '.join(sorted(wrong)[:NAMED_FAULTS])}{more}. "
            "Train the checkpoint again, or load it with the version of rcml that made it."
        )
    network.load_state_dict(weights)
    return network.eval()


def write_network(draft: Draft, network: Network) -> None:
    """Write `model.safetensors` and `network.json`.

    Raises:
        InputError: the weights are not float32.
    """
    weights = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    for name, tensor in weights.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise InputError(
                f"The weight {name} is {_dtype(tensor)}, and a checkpoint keeps float32: what was rounded off "
                "cannot be had back. Save an encoder that was loaded in float32."
            )
    # Cloned, because safetensors refuses tensors that share memory.
    save_file(
        {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()},
        draft.path / WEIGHTS_FILE,
        metadata={"format": "pt"},
    )
    text = network.config.model_dump_json(indent=2) + "\n"
    (draft.path / "network.json").write_text(text, encoding="utf-8")


def write_processors(draft: Draft, preprocessor: Preprocessor, source: Source | None) -> None:
    """Write the tokenizer and the image processor: byte for byte as they were loaded, if they were."""
    if source is None or not source.processor_files:
        preprocessor.save(draft.path)
        return
    for file, content in source.processor_files.items():
        (draft.path / file).parent.mkdir(exist_ok=True)
        (draft.path / file).write_bytes(content)


def _shape(tensor: Tensor) -> str:
    return f"{_dtype(tensor)} {list(tensor.shape)}"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")

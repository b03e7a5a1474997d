"""Loading and saving the network and the processors of a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.artifact import Draft
from model.checkpoint.checkpoint import OWN_FILES, WEIGHTS_FILE, Checkpoint
from model.checkpoint.hub import fetch, is_local
from model.errors import ArtifactError, InputError
from model.network.network import Network, NetworkConfig
from model.network.processor import Preprocessor
from model.plain_file import file_digest, read_plain

NAMED_FAULTS = 8
"""Maximum number of mismatched weights listed in an error message; the rest are only counted."""


@dataclass(frozen=True)
class Source:
    """Checkpoint that an encoder was loaded from.

    `processor_files` contains the files of its tokenizer and image processor, as read from disk. Saving the processors
    with transformers instead would add the version of transformers and the settings of the last call to these files.
    `readme` is the model card, or the reason why it cannot be read: only saving needs it, and anybody may edit it.
    """

    checkpoint: Checkpoint
    processor_files: Mapping[str, bytes]
    readme: str | ArtifactError

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the checkpoint at `folder`.

        Raises:
            ArtifactError: the checkpoint is missing or damaged.
        """
        checkpoint = Checkpoint.open(folder)
        files = checkpoint.manifest.files
        others = files.keys() - OWN_FILES
        contents = {name: read_plain(folder / name, folder, files[name].size) for name in others}
        try:
            return cls(checkpoint, contents, checkpoint.card)
        except ArtifactError as error:
            return cls(checkpoint, contents, error)

    @property
    def card(self) -> str:
        """Text of the model card.

        Raises:
            ArtifactError: README.md was not a plain file of UTF-8 text when the checkpoint was loaded.
        """
        if isinstance(self.readme, ArtifactError):
            raise self.readme
        return self.readme

    def has_weights_of(self, draft: Draft) -> bool:
        """Return whether the weights in `draft` are identical to the loaded weights."""
        return file_digest(draft.path / WEIGHTS_FILE) == self.checkpoint.manifest.files[WEIGHTS_FILE].sha256


def locate(source: str | Path, revision: str | None) -> Path:
    """Return the folder of the checkpoint `source`; a Hub name (`owner/name`) is first downloaded at `revision`.

    A `Path` always means a folder. A string means a Hub name only if it has the form `owner/name` and no local file or
    folder named `owner` exists.

    Raises:
        ArtifactError: the checkpoint does not exist on the Hub, or the download fails.
        InputError: `revision` is given for a folder.
    """
    if isinstance(source, Path) or is_local(source) or "/" not in source:
        if revision is not None:
            raise InputError(f"{source} is a folder and has no revision {revision!r}. Omit the revision.")
        return Path(source)
    return fetch(source, revision)


def load_network(folder: Path) -> Network:
    """Load the network of the checkpoint at `folder` in evaluation mode, with exactly the saved weights.

    Raises:
        ArtifactError: the network cannot be read, or the weights do not fit it.
    """
    try:
        config = NetworkConfig.model_validate_json(read_plain(folder / "network.json"))
        weights = load_file(folder / WEIGHTS_FILE)
    except (ValidationError, SafetensorError) as error:
        raise ArtifactError(
            f"The network in {folder} cannot be read by this version of rcml. Train the checkpoint again, or load it "
            f"with the version of rcml that wrote it. Details: {error}"
        ) from None
    network = Network.from_config(config)
    expected = network.state_dict()
    wrong = [f"{name} is missing" for name in expected.keys() - weights.keys()]
    wrong += [f"{name} is unexpected" for name in weights.keys() - expected.keys()]
    wrong += [
        f"{name} is {_shape(weights[name])} instead of {_shape(expected[name])}"
        for name in expected.keys() & weights.keys()
        if _shape(weights[name]) != _shape(expected[name])
    ]
    if wrong:
        more = f"; and {len(wrong) - NAMED_FAULTS} more" if len(wrong) > NAMED_FAULTS else ""
        raise ArtifactError(
            f"{folder / WEIGHTS_FILE} does not fit network.json: {'; '.join(sorted(wrong)[:NAMED_FAULTS])}{more}. "
            "Train the checkpoint again, or load it with the version of rcml that wrote it."
        )
    network.load_state_dict(weights)
    return network.eval()


def write_network(draft: Draft, network: Network) -> None:
    """Write `model.safetensors` and `network.json` into `draft`.

    Raises:
        InputError: the weights are not float32.
    """
    if network.backbone.runtime == "torch" and network.backbone.precision != "fp32":
        raise InputError(
            f"The weights of the towers are {network.backbone.precision}, but a checkpoint stores float32, and the "
            "lost precision cannot be restored. Save an encoder that was loaded in float32."
        )
    weights = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    for name, tensor in weights.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise InputError(
                f"The weight {name} is {_dtype(tensor)}, but a checkpoint stores float32, and the lost precision "
                "cannot be restored. Save an encoder that was loaded in float32."
            )
    # Clone the tensors, because safetensors rejects tensors that share memory.
    save_file(
        {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()},
        draft.path / WEIGHTS_FILE,
        metadata={"format": "pt"},
    )
    # Checkpoints of earlier versions lack the keys that have a default. They must be saved unchanged.
    text = network.config.model_dump_json(indent=2, exclude_defaults=True) + "\n"
    (draft.path / "network.json").write_text(text, encoding="utf-8")


def write_processors(draft: Draft, preprocessor: Preprocessor, source: Source | None) -> None:
    """Write the tokenizer and the image processor; the files of `source`, if any, are written unchanged."""
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

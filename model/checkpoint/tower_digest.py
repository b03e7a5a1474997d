"""Digest of the towers of a checkpoint: networks with the same digest encode an item into the same tokens."""

import hashlib
import json

from safetensors import safe_open

from model.plain_file import read_json

from .checkpoint import OWN_FILES, WEIGHTS_FILE, Checkpoint

TOWERS = ("backbone.", "text_norm.", "image_norm.")
"""Prefixes of the names of all weights that turn an item into tokens."""

PROJECTIONS = frozenset(f"backbone.model.{name}_projection.weight" for name in ("text", "visual"))
"""Weights of the projections, which are applied after the tokens; `--tune frozen` trains them."""


def tower_digest(checkpoint: Checkpoint) -> str:
    """Return the SHA-256 of everything that turns an item into tokens, in hexadecimal digits.

    These are the config of the towers, their weights except the projections, the centres of normalised tokens, the
    tokenizer and the image processor.
    """
    backbone = read_json(checkpoint.path / "network.json")["backbone"]
    files = checkpoint.manifest.files
    processors = {file: files[file].sha256 for file in sorted(files.keys() - OWN_FILES)}
    digest = hashlib.sha256(json.dumps([backbone, processors], sort_keys=True).encode())
    with safe_open(checkpoint.path / WEIGHTS_FILE, framework="np") as weights:
        for name in sorted(weights.keys()):
            if name.startswith(TOWERS) and name not in PROJECTIONS:
                weight = weights.get_tensor(name)
                digest.update(f"{name} {weight.dtype} {weight.shape}".encode())
                digest.update(weight.tobytes())
    return digest.hexdigest()

"""Shards of encoded items: files next to the generations, from which an interrupted build resumes.

    .generation-encoded/
      run.json                             digests of the inputs, and the options that affect the vectors
      00007-9f86d081884c7d65.safetensors   the eighth range of `ITEMS_PER_SHARD` items; the name ends in the digest

A shard contains `text`, `image` and `average` (float16 `[relations, items, dim]`), `kept` (int64, the positions of the
encoded items among all items), and the tokens if the index stores them. Its metadata contains the skipped items, each
with the reason. Shards are written atomically but not fsynced: a shard that was damaged by a power failure does not
match its digest, and its items are encoded again.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float16, Int64
from numpy import ndarray
from pydantic import BaseModel, ConfigDict
from safetensors import safe_open
from safetensors.numpy import save

from model.console import say
from model.durable_files import storing
from model.embeddings.encoding import Encoding, ItemTokens, TokenRows
from model.errors import ArtifactError
from model.plain_file import plain_status, read_model
from model.similarity import View

SHARDS_DIR = ".generation-encoded"
"""Name of the folder within an index that contains the shards."""

ITEMS_PER_SHARD = 1_024
"""Number of items in a shard. An interrupted build loses only its unfinished shards."""


class EncodingRun(BaseModel):
    """Content of `run.json`: the inputs of the shards. A build with other inputs cannot reuse them.

    `towers` is what `--precision` and `--engine` come to on the machine: `auto` may choose otherwise on another one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    parents: dict[str, str]
    towers: str
    tokens: bool


@dataclass
class Shard:
    """Shard that is not written yet, with its encoded batches.

    `kept` and the keys of `set_aside` are positions among all items; the values of `set_aside` are the reasons.
    """

    number: int
    kept: list[int] = field(default_factory=list)
    encodings: list[Encoding] = field(default_factory=list)
    set_aside: dict[int, str] = field(default_factory=dict)


class Shards:
    """Folder with the shards of one run, which all processes of a group share."""

    def __init__(self, folder: Path, items: int) -> None:
        self.folder = folder
        self._items = items

    def begin(self, run: EncodingRun) -> None:
        """Resume the run in the folder if it equals `run`; otherwise remove its shards and start a new run.

        Raises:
            StorageError: the disk is full or failing.
        """
        with storing(self.folder):
            if self.folder.exists() and not self._go_on(run):
                say("An earlier run used other data or options. Its encoded items were removed.")
                shutil.rmtree(self.folder)
            if not self.folder.exists():
                self.folder.mkdir(parents=True)
                (self.folder / "run.json").write_text(run.model_dump_json(indent=2) + "\n", encoding="utf-8")
            elif done := sum(len(self.rows(number)) for number in self.done()):
                say(f"Resuming: an earlier run encoded {done:,} of {self._items:,} items.")

    def _go_on(self, run: EncodingRun) -> bool:
        """Return whether the folder contains shards of `run`; if so, remove damaged and unfinished shards."""
        try:
            if read_model(EncodingRun, self.folder / "run.json") != run:
                return False
        except (FileNotFoundError, ArtifactError):
            return False
        for path in self.folder.iterdir():
            if path.name != "run.json" and not _is_whole(path):
                path.unlink()
        return True

    @property
    def count(self) -> int:
        """Number of shards when all items are encoded."""
        return -(-self._items // ITEMS_PER_SHARD)

    def done(self) -> list[int]:
        """Return the numbers of the finished shards, in ascending order."""
        return sorted(int(path.name.partition("-")[0]) for path in self.folder.glob("*.safetensors"))

    def rows(self, number: int) -> range:
        """Return the positions of the items of a shard."""
        return range(number * ITEMS_PER_SHARD, min((number + 1) * ITEMS_PER_SHARD, self._items))

    def write(self, shard: Shard) -> None:
        """Write a finished shard atomically.

        Raises:
            StorageError: the disk is full or failing.
        """
        arrays: dict[str, ndarray] = {"kept": np.asarray(shard.kept, np.int64)}
        if shard.kept:
            for view in View:
                vectors = np.concatenate([one.view(view).astype(np.float16) for one in shard.encodings])
                arrays[view] = np.ascontiguousarray(vectors.swapaxes(0, 1))
            if parts := [one.tokens for one in shard.encodings if one.tokens is not None]:
                tokens = ItemTokens.joined(parts)
                for name, rows in (("text", tokens.text), ("image", tokens.image)):
                    arrays |= {f"{name}_tokens": rows.states, f"{name}_starts": rows.starts}
        content = save(arrays, {"set_aside": json.dumps(shard.set_aside)})
        partial = self.folder / f"{shard.number:05d}.partial"
        with storing(self.folder):
            partial.write_bytes(content)
            partial.rename(self.folder / f"{shard.number:05d}-{_digest(content)}.safetensors")

    def kept(self) -> Int64[ndarray, " kept"]:
        """Read the positions of all encoded items, in order."""
        return np.concatenate([np.empty(0, np.int64), *self._arrays("kept")])

    def set_aside(self) -> dict[int, str]:
        """Read the positions of the skipped items, each with the reason."""
        found: dict[int, str] = {}
        for path in self._paths():
            with safe_open(path, "numpy") as file:
                raw: dict[str, str] = json.loads(file.metadata()["set_aside"])
                found |= {int(place): reason for place, reason in raw.items()}
        return found

    def vectors(self, relation: int, view: View) -> Iterator[Float16[ndarray, "items dim"]]:
        """Read the vectors of the encoded items, shard by shard."""
        for path in self._paths():
            with safe_open(path, "numpy") as file:
                if view in file.keys():  # noqa: SIM118 (a safetensors file is not a mapping)
                    yield file.get_slice(view)[relation : relation + 1][0]

    def tokens(self) -> Iterator[ItemTokens]:
        """Read the tokens of the encoded items, shard by shard."""
        parts = (
            self._arrays(f"{name}_{part}") for name in ("text", "image") for part in ("tokens", "starts")
        )
        for text, text_starts, image, image_starts in zip(*parts, strict=True):
            yield ItemTokens(TokenRows(text, text_starts), TokenRows(image, image_starts))

    def remove(self) -> None:
        """Remove the folder and all shards."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _arrays(self, name: str) -> Iterator[ndarray]:
        for path in self._paths():
            with safe_open(path, "numpy") as file:
                if name in file.keys():  # noqa: SIM118
                    yield file.get_tensor(name)

    def _paths(self) -> Sequence[Path]:
        return sorted(self.folder.glob("*.safetensors"))


def _is_whole(path: Path) -> bool:
    """Return whether `path` is a finished shard whose digest matches its name."""
    try:
        plain_status(path, path.parent)
        return path.suffix == ".safetensors" and path.stem.partition("-")[2] == _digest(path.read_bytes())
    except (ArtifactError, FileNotFoundError):
        return False


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]

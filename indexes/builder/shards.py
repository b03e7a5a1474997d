"""Shards of items encoded so far: files beside the generations, each whole or absent, so that a kill costs little.

    .generation-encoded/
      run.json                        what was encoded, by what: its parents, and the options that move a vector
      00007-9f86d081884c7d65.safetensors   the eighth stretch of `ITEMS_PER_SHARD` items; its name ends in its digest

A shard holds `text`, `image` and `average` (float16 `[relations, items, dim]`), `kept` (int64, places of these items
among all), and the tokens where they are to be kept. Items that could not be read are in its metadata, with the
reason. Nothing is synced: a shard that a power failure tore has another digest, and is encoded again.
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
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import safe_open
from safetensors.numpy import save

from model.artifact import storing
from model.console import say
from model.embeddings.encoding import Encoding, ItemTokens, TokenRows
from model.similarity import View

SHARDS_DIR = ".generation-encoded"
"""Folder of the shards within an index."""

ITEMS_PER_SHARD = 1_024
"""Items of a shard, which is what a kill may cost."""


class EncodingRun(BaseModel):
    """The contents of `run.json`: what the shards are made from; those of another run are of no use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parents: dict[str, str]
    precision: str
    engine: str
    tokens: bool


@dataclass
class Shard:
    """A shard in the making: what was encoded, batch by batch."""

    number: int
    kept: list[int] = field(default_factory=list)
    encodings: list[Encoding] = field(default_factory=list)
    set_aside: dict[int, str] = field(default_factory=dict)


class Shards:
    """The folder of one run; processes that encode together share it."""

    def __init__(self, folder: Path, items: int) -> None:
        self.folder = folder
        self._items = items

    def begin(self, run: EncodingRun) -> None:
        """Go on with the run in the folder if it is `run`, and otherwise begin it anew.

        Raises:
            StorageError: the disk is full or failing.
        """
        with storing(self.folder):
            if self.folder.exists() and not self._go_on(run):
                say("What an earlier run had encoded is of other data or options, and was removed.")
                shutil.rmtree(self.folder)
            if not self.folder.exists():
                self.folder.mkdir(parents=True)
                (self.folder / "run.json").write_text(run.model_dump_json(indent=2) + "\n", encoding="utf-8")
            elif done := sum(len(self.rows(number)) for number in self.done()):
                say(f"Going on after {done:,} of {self._items:,} items that an earlier run had encoded.")

    def _go_on(self, run: EncodingRun) -> bool:
        """Tell whether the run there is this one; remove its torn shards."""
        try:
            if EncodingRun.model_validate_json((self.folder / "run.json").read_bytes()) != run:
                return False
        except (FileNotFoundError, ValidationError):
            return False
        for path in self.folder.iterdir():
            whole = path.suffix == ".safetensors" and path.stem.partition("-")[2] == _digest(
                path.read_bytes()
            )
            if not whole and path.name != "run.json":
                path.unlink()
        return True

    @property
    def count(self) -> int:
        """Number of shards when all is encoded."""
        return -(-self._items // ITEMS_PER_SHARD)

    def done(self) -> list[int]:
        """List the numbers of the shards that are there."""
        return sorted(int(path.name.partition("-")[0]) for path in self.folder.glob("*.safetensors"))

    def rows(self, number: int) -> range:
        """Give the places of the items of a shard."""
        return range(number * ITEMS_PER_SHARD, min((number + 1) * ITEMS_PER_SHARD, self._items))

    def write(self, shard: Shard) -> None:
        """Write a whole shard.

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
        """Read the places of all items that were encoded, in order."""
        return np.concatenate([np.empty(0, np.int64), *self._arrays("kept")])

    def set_aside(self) -> dict[int, str]:
        """Read the places of the items that could not be read, and why."""
        found: dict[int, str] = {}
        for path in self._paths():
            with safe_open(path, "numpy") as file:
                raw: dict[str, str] = json.loads(file.metadata()["set_aside"])
                found |= {int(place): reason for place, reason in raw.items()}
        return found

    def vectors(self, relation: int, view: View) -> Iterator[Float16[ndarray, "items dim"]]:
        """Read the vectors of the items kept, shard by shard."""
        for path in self._paths():
            with safe_open(path, "numpy") as file:
                if view in file.keys():  # noqa: SIM118 (a file is no mapping)
                    yield file.get_slice(view)[relation : relation + 1][0]

    def tokens(self) -> Iterator[ItemTokens]:
        """Read the tokens of the items kept, shard by shard."""
        parts = (
            self._arrays(f"{name}_{part}") for name in ("text", "image") for part in ("tokens", "starts")
        )
        for text, text_starts, image, image_starts in zip(*parts, strict=True):
            yield ItemTokens(TokenRows(text, text_starts), TokenRows(image, image_starts))

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _arrays(self, name: str) -> Iterator[ndarray]:
        for path in self._paths():
            with safe_open(path, "numpy") as file:
                if name in file.keys():  # noqa: SIM118
                    yield file.get_tensor(name)

    def _paths(self) -> Sequence[Path]:
        return sorted(self.folder.glob("*.safetensors"))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]

"""Embedding a catalogue, compared with running only the towers: `python -m benchmarks.build [--quick]`.

The network is ViT-B/32 from its config, with random weights and 10 relations, in the precision that `rcml index build`
chooses on this machine. The build reads JPEGs (256 pixels wide) from disk, encodes them and their titles under all
relations, and writes the vectors to a shard: with and without tokens, and with pictures that were decoded before. The
reference runs only the two towers over the same batches, which are tokenized, decoded and normalised beforehand. The
last row only decodes the pictures, with all workers of the build and, on CUDA, the processes of a large build.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from benchmarks.rig.measurement import interleave, milliseconds, on_every_device
from benchmarks.rig.results import conclude, show
from benchmarks.rig.vit_b_32 import make_network, make_relations
from indexes.builder.embed import SINGLE_PROCESS, Embedding
from indexes.builder.shards import EncodingRun, Shards
from indexes.config import BuildConfig
from model.artifact import Manifest
from model.config import SmallBackbone
from model.data.prepared_data import Prepared
from model.embeddings.encoder_protocol import ItemEncoder, ItemReader, PictureFolder
from model.encoder.encoder import Encoder
from model.encoder.item_reader import choose_workers
from model.network.inference.precision import inference_backbone
from model.network.inputs import PictureInput, TextInput
from model.network.pictures.decoding_pool import MIN_FOR_PROCESSES, DecodingPool, decoding_pool
from model.network.processor import Preprocessor
from model.plain_file import FileRecord
from model.records import Item, Split

RELATIONS = 10
WORDS = (
    "red",
    "blue",
    "striped",
    "dotted",
    "plain",
    "wooden",
    "steel",
    "mug",
    "hat",
    "lamp",
    "chair",
    "shelf",
)


@dataclass(frozen=True)
class Batch:
    """Inputs of the towers for one batch of items."""

    text: TextInput
    pictures: PictureInput


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=11, help="timed runs of each variant")
    parser.add_argument("--quick", action="store_true", help="use tiny sizes, to check that it runs")
    options = parser.parse_args()
    conclude(on_every_device(partial(measure, options.quick, 2 if options.quick else options.rounds)))


def measure(quick: bool, rounds: int, device: torch.device) -> dict[str, Any]:
    """Measure on one device and return the figures."""
    count, size = (24, 8) if quick else (2048, 256) if device.type == "cuda" else (256, 32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items = make_items(folder, count)
        network = make_network(quick).eval()
        side: int = network.backbone.model.config.vision_config.image_size
        preprocessor = Preprocessor.train([item.text for item in items], SmallBackbone(image_size=side))
        network.backbone = inference_backbone(network.backbone, preprocessor, "auto", "torch", device)
        encoder = Encoder(network, preprocessor, make_relations(RELATIONS), device)
        encoder.context()
        batches = [
            make_batch(preprocessor, folder, items[start : start + size], device)
            for start in range(0, count, size)
        ]
        prepared = make_prepared(folder, items)
        workers = choose_workers(device.type == "cuda", 1)
        many = MIN_FOR_PROCESSES if device.type == "cuda" else count
        with decoding_pool(preprocessor.decoder, many, workers, size, device) as pool:
            decode(pool, prepared.pictures)  # starts the workers
            sides: dict[str, Callable[[], object]] = {
                "towers": partial(forward, encoder, batches),
                "build": partial(embed, encoder, prepared, pool, size),
                "build with tokens": partial(embed, encoder, prepared, pool, size, tokens=True),
                "build from the cache": partial(
                    embed_from_cache, encoder, prepared, folder / "decoded", size
                ),
                "decoding alone": partial(decode, pool, prepared.pictures),
            }
            timings = interleave(sides, rounds)
    shares = {name: timings.ratio("towers", name) for name in sides}
    show(
        f"embedding {count} items on {device.type} in {str(network.backbone.dtype).removeprefix('torch.')}, "
        f"{workers} workers",
        ("", "ms", "quartiles", "items/s", "fraction of the towers' rate"),
        [
            [
                name,
                *milliseconds(timings, name),
                f"{count / timings.median(name):.1f}",
                f"{shares[name]:.3f}",
            ]
            for name in sides
        ],
    )
    return {
        "items_per_s": count / timings.median("build"),
        "share_of_forward_rate": shares["build"],
        "share_with_tokens": shares["build with tokens"],
        "share_from_cache": shares["build from the cache"],
        "decoded_per_s": count / timings.median("decoding alone"),
        "workers": workers,
    }


def make_items(folder: Path, count: int) -> list[Item]:
    """Create items with titles of 3 to 8 words and pictures of blurred noise.

    Blurred noise compresses about as well as a photograph.
    """
    rng = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    items = []
    for row in range(count):
        noise = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        picture = f"pictures/{row:07d}.jpg"
        noise.resize((256, 192), Image.Resampling.BICUBIC).save(folder / picture, quality=90)
        title = " ".join(rng.choice(WORDS, int(rng.integers(3, 9))))
        items.append(Item(f"i{row}", title, "", ("Home",), f"{title}. Home", picture))
    return items


def make_batch(preprocessor: Preprocessor, folder: Path, items: list[Item], device: torch.device) -> Batch:
    """Prepare the inputs of the towers for `items`."""
    room = preprocessor.blank(len(items))
    for row, item in enumerate(items):
        with Image.open(folder / item.picture) as picture:
            preprocessor.decode(picture, room, row)
    text = preprocessor.tokenize([item.text for item in items])
    return Batch(text.to(device), preprocessor.normalise(room.to(device)))


@torch.inference_mode()
def forward(encoder: Encoder, batches: list[Batch]) -> None:
    """Run the two towers and nothing else."""
    backbone = encoder.network.backbone
    for batch in batches:
        backbone.text_tokens(batch.text)
        backbone.image_tokens(batch.pictures)


def make_prepared(folder: Path, items: list[Item]) -> Prepared:
    """Return `items`, whose pictures are in `folder`, as prepared data without relations."""
    files = {item.picture: FileRecord.of(folder / item.picture) for item in items if item.picture}
    manifest = Manifest(format=1, kind="prepared", version="", parents={}, counts={}, files=files)
    return Prepared(folder, manifest, tuple(items), (Split.TRAIN,) * len(items), (), (), ())


@dataclass(frozen=True)
class WarmEncoder:
    """Encoder whose reader uses a pool with workers that have started, as after the first second of a large build."""

    encoder: Encoder
    pool: DecodingPool

    @property
    def towers(self) -> str:
        """Precision and library of the encoder's towers in words."""
        return self.encoder.towers

    @contextmanager
    def open_reader(self, folder: PictureFolder, batch_size: int) -> Iterator[ItemReader]:
        """Open a reader that uses the pool."""
        yield self.encoder.reader(self.pool)


def embed(encoder: Encoder, prepared: Prepared, pool: DecodingPool, size: int, tokens: bool = False) -> None:
    """Embed items into a shard, as the first stage of `rcml index build` does, and remove the shard."""
    _embed(cast(ItemEncoder, WarmEncoder(encoder, pool)), prepared, size, tokens, None)


def embed_from_cache(encoder: Encoder, prepared: Prepared, cache: Path, size: int) -> None:
    """Embed items whose decoded pictures are in the folder `cache`; the first call puts them there."""
    _embed(encoder, prepared, size, False, cache)


def _embed(encoder: ItemEncoder, prepared: Prepared, size: int, tokens: bool, cache: Path | None) -> None:
    folder = prepared.path
    config = BuildConfig(
        checkpoint=folder,
        prepared=folder,
        out=folder,
        batch_size=size,
        token_store=tokens,
        decoded_pictures=cache,
    )
    shards = Shards(folder / "encoded", len(prepared.items))
    shards.begin(EncodingRun(parents={}, towers=encoder.towers, tokens=tokens))
    with redirect_stderr(StringIO()):  # the closing line of each run
        Embedding(encoder, prepared, shards, config).run(SINGLE_PROCESS)
    shards.remove()


def decode(pool: DecodingPool, paths: list[Path]) -> None:
    """Decode pictures and nothing else."""
    for _, batch in pool.batches(paths):
        batch.release()


if __name__ == "__main__":
    main()

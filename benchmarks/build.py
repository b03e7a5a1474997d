"""Embedding a catalogue beside the bare towers: `python -m benchmarks.build [--quick]`.

ViT-B/32 from its config, random weights, in the precision that `rcml index build` takes here, 10 relations. On one
side what the build does: JPEGs of 256 pixels and titles are read from the disk by threads, encoded under all relations,
and written to a shard, with and without tokens. On the other the two towers alone, over the same batches, which were
tokenized, decoded and normalised beforehand.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.rig.measurement import interleave, milliseconds, on_every_device
from benchmarks.rig.results import conclude, show
from benchmarks.rig.vit_b_32 import make_network, make_relations
from indexes.builder.embed import SINGLE_PROCESS, Embedding
from indexes.builder.shards import EncodingRun, Shards
from model.config import SmallBackbone
from model.encoder.encoder import Encoder
from model.network.inputs import PictureInput, TextInput
from model.network.precision import inference_backbone
from model.network.processor import Preprocessor
from model.records import Item

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
    """What the towers are given."""

    text: TextInput
    pictures: PictureInput


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=11, help="timed runs of each side")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    options = parser.parse_args()
    conclude(on_every_device(partial(measure, options.quick, 2 if options.quick else options.rounds)))


def measure(quick: bool, rounds: int, device: torch.device) -> dict[str, Any]:
    """The figures of one device."""
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
        sides: dict[str, Callable[[], object]] = {
            "towers": partial(forward, encoder, batches),
            "build": partial(embed, encoder, folder, items, size, False),
            "build with tokens": partial(embed, encoder, folder, items, size, True),
        }
        timings = interleave(sides, rounds)
    shares = {name: timings.ratio("towers", name) for name in sides}
    show(
        f"embedding {count} items, {device.type}, {str(network.backbone.dtype).removeprefix('torch.')}",
        ("", "ms", "quartiles", "items/s", "share of the towers' rate"),
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
    }


def make_items(folder: Path, count: int) -> list[Item]:
    """Titles of a few words, and blurred noise, which compresses about as a photograph does."""
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
    """Some items as the towers take them."""
    room = preprocessor.blank(len(items))
    for row, item in enumerate(items):
        with Image.open(folder / item.picture) as picture:
            preprocessor.decode(picture, room, row)
    text = preprocessor.tokenize([item.text for item in items])
    return Batch(text.to(device), preprocessor.normalise(room.to(device)))


@torch.inference_mode()
def forward(encoder: Encoder, batches: list[Batch]) -> None:
    """The two towers, and nothing else."""
    backbone = encoder.network.backbone
    for batch in batches:
        backbone.text_tokens(batch.text)
        backbone.image_tokens(batch.pictures)


def embed(encoder: Encoder, folder: Path, items: list[Item], size: int, tokens: bool) -> None:
    """What `rcml index build` does first."""
    shards = Shards(folder / "encoded", len(items))
    shards.begin(EncodingRun(parents={}, precision="auto", engine="torch", tokens=tokens))
    Embedding(encoder, folder, items, shards, tokens).run(SINGLE_PROCESS, size, workers=2)
    shards.remove()


if __name__ == "__main__":
    main()

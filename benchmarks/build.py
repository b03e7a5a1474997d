"""Embedding a catalogue, compared with running only the towers: `python -m benchmarks.build [--quick]`.

The network is ViT-B/32 from its config, with random weights and 10 relations, in the precision that `rcml index build`
chooses on this machine. The build reads JPEGs (256 pixels wide) from disk in threads, encodes them and their titles
under all relations, and writes the vectors to a shard, with and without tokens. The reference runs only the two towers
over the same batches, which are tokenized, decoded and normalised beforehand.
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
        sides: dict[str, Callable[[], object]] = {
            "towers": partial(forward, encoder, batches),
            "build": partial(embed, encoder, folder, items, size, False),
            "build with tokens": partial(embed, encoder, folder, items, size, True),
        }
        timings = interleave(sides, rounds)
    shares = {name: timings.ratio("towers", name) for name in sides}
    show(
        f"embedding {count} items on {device.type} in {str(network.backbone.dtype).removeprefix('torch.')}",
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


def embed(encoder: Encoder, folder: Path, items: list[Item], size: int, tokens: bool) -> None:
    """Embed `items` into a shard, as the first stage of `rcml index build` does, and remove the shard."""
    shards = Shards(folder / "encoded", len(items))
    shards.begin(EncodingRun(parents={}, precision="auto", engine="torch", tokens=tokens))
    Embedding(encoder, folder, items, shards, tokens).run(SINGLE_PROCESS, size, workers=2)
    shards.remove()


if __name__ == "__main__":
    main()

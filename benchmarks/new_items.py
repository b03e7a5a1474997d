"""New items in words, encoded by a server: `python -m benchmarks.new_items [--quick]`.

The network is ViT-B/32 from its config, with random weights and 10 relations, in the precision that `rcml serve`
chooses on this machine. A server process runs the same application as `rcml serve`, on an index of 1,000 items. Two
kinds of request are sent over loopback, one at a time: `POST /retrieve` for a new title, and `POST /embeddings` for 100
new titles. The reference is the same encoder in this process: one title alone, and 100 titles in one batch.

On a machine with a GPU, both run on the GPU as well.
"""

import argparse
import json
import multiprocessing
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import httpx
import torch

from benchmarks.build import WORDS
from benchmarks.rig.measurement import interleave, milliseconds, on_every_device
from benchmarks.rig.results import conclude, show
from benchmarks.rig.shop import Shop, relations
from benchmarks.rig.vit_b_32 import make_network
from model.config import SmallBackbone
from model.encoder.encoder import Encoder
from model.malloc import keep_freed_memory
from model.network.inference.precision import inference_backbone
from model.network.processor import Preprocessor
from service.app import create_app
from service.lifecycle.engine_holder import EngineHolder
from service.serve import limit_garbage_collection, server_of
from service.settings import ServeConfig

RELATIONS = 10
EMBEDDED_ITEMS = 100
CATALOGUE_ITEMS = 1_000


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=60, help="requests of each kind")
    parser.add_argument("--quick", action="store_true", help="use a tiny network, to check that it runs")
    asked = parser.parse_args()
    conclude(on_every_device(partial(measure, asked.quick, 3 if asked.quick else asked.rounds)))


def measure(quick: bool, rounds: int, device: torch.device) -> dict[str, Any]:
    """Measure on one device and return the figures."""
    encoder = make_encoder(quick, device)
    shop = Shop(Path(), CATALOGUE_ITEMS, relations(RELATIONS), encoder.dim)
    draw = Random(0)

    def title() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randrange(3, 9)))

    def titles() -> list[str]:
        return [title() for _ in range(EMBEDDED_ITEMS)]

    with tempfile.TemporaryDirectory() as folder:
        index = Shop(Path(folder), shop.items, shop.relations, shop.dim).write()
        with served(index, quick, device) as client:

            def ask(path: str, **body: object) -> None:
                client.post(path, content=json.dumps(body)).raise_for_status()

            sides = {
                "encoder, 1 item": lambda: encoder.encode_texts([title()]),
                "POST /retrieve, 1 new item": lambda: ask(
                    "/retrieve", text=title(), relation="relation-1", k=10
                ),
                f"encoder, {EMBEDDED_ITEMS} items": lambda: encoder.encode_texts(titles()),
                f"POST /embeddings, {EMBEDDED_ITEMS} new items": lambda: ask(
                    "/embeddings",
                    items=[{"text": text} for text in titles()],
                    relation="relation-1",
                    encoding="base64",
                ),
            }
            timings = interleave(sides, rounds, warmup=3)
    alone, retrieve, together, embeddings = sides
    show(
        f"new items in words on {device.type} in {str(encoder.network.backbone.dtype).removeprefix('torch.')}",
        ("", "p50 ms", "quartiles", "over the encoder"),
        [
            [side, *milliseconds(timings, side), f"{timings.ratio(side, reference):.2f}"]
            for side, reference in zip(sides, (alone, alone, together, together), strict=True)
        ],
    )
    return {
        "new_item_ms": 1e3 * timings.median(retrieve),
        "new_item_over_encoder": timings.ratio(retrieve, alone),
        "embeddings_ms": 1e3 * timings.median(embeddings),
        "embeddings_over_encoder": timings.ratio(embeddings, together),
    }


def make_encoder(quick: bool, device: torch.device) -> Encoder:
    """Create the encoder of the server and of the reference, which have the same weights."""
    network = make_network(quick).eval()
    side: int = network.backbone.model.config.vision_config.image_size
    preprocessor = Preprocessor.train(WORDS, SmallBackbone(image_size=side))
    network.backbone = inference_backbone(network.backbone, preprocessor, "auto", "torch", device)
    return Encoder(network, preprocessor, relations(RELATIONS), device)


@contextmanager
def served(index: Path, quick: bool, device: torch.device) -> Iterator[httpx.Client]:
    """Serve `index` in a process of its own, and yield a client of it.

    Raises:
        RuntimeError: the process ended before it served.
    """
    fresh = multiprocessing.get_context("spawn")
    pipe, theirs = fresh.Pipe()
    process = fresh.Process(target=serve, args=(index, quick, device.type, theirs), daemon=True)
    process.start()
    theirs.close()  # only then does `recv` fail if the process ends
    try:
        headers = {"content-type": "application/json"}
        with ExitStack() as stack:
            try:
                url = f"http://127.0.0.1:{pipe.recv()}"
                client = stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=60))
                while client.get("/readyz").status_code != 200:
                    time.sleep(0.2)
            except (EOFError, httpx.TransportError):
                raise RuntimeError("The server process ended. Its message is above.") from None
            yield client
    finally:
        process.terminate()
        process.join()


def serve(index: Path, quick: bool, device: str, pipe: Connection) -> None:
    """Run the server process: send the port through `pipe`, then serve until terminated."""
    keep_freed_memory()
    config = ServeConfig(index=index, port=0, log_level="error")
    failures: list[BaseException] = []

    def on_loaded(holder: EngineHolder) -> None:
        if holder.failure is not None:
            failures.append(holder.failure)
            server.should_exit = True
            return
        limit_garbage_collection()

    app = create_app(config, lambda *_: make_encoder(quick, torch.device(device)), on_loaded)
    listener = socket.create_server((config.host, 0))
    server = server_of(app, config)
    pipe.send(listener.getsockname()[1])
    with listener:
        server.run(sockets=[listener])
    if failures:
        raise failures[0]


if __name__ == "__main__":
    main()

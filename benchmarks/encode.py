"""Encoding compared with plain CLIP: `python -m benchmarks.encode [--quick]`.

The first part measures the cost of relations: text and picture of 16 items under 1, 10 and 100 relations, relative to
the two forward passes of CLIP on the same inputs, in fp32 (bf16 on CUDA). It also measures a naive loop, which pools
under one relation at a time and absorbs no projection. Relations are encoded beforehand, because this is needed only
once per set of weights.

On CUDA, the first part also measures all sides as CUDA graphs, as the service runs them.

The second part runs only on a CPU. It measures the speed of serving 16 items under 10 relations. The reference is
`CLIPModel` of transformers in fp32, with its default settings. It is compared with our towers in torch, in bf16 if the
processor supports it and in int8, and with our towers in OpenVINO, if it is installed. This part also prints the
minimum cosine between the vectors of each variant and the features of `CLIPModel`, in the special case in which both
should be equal (beta 1, one-hot summary). All variants pad texts to 77 tokens, except in the table that says otherwise.
"""

import argparse
import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from benchmarks.rig.measurement import Timings, interleave, milliseconds, on_every_device
from benchmarks.rig.results import conclude, show
from benchmarks.rig.vit_b_32 import Items, make_items, make_network, make_relations, make_texts
from model.network.backbones import Backbone
from model.network.inference.cuda_graphs import CudaRecorder, RecordedCalls, Recorder
from model.network.inference.int8 import MIN_INT8_COSINE, computes_in_int8, in_int8
from model.network.inference.precision import computes_in_bf16, in_bf16
from model.network.inputs import PictureInput, TextInput, Tokens
from model.network.network import Network
from model.network.relation_attention import ONE_HOT_SCALE, RelationAttention, RelationContext

BATCH_ITEMS = 16
RELATIONS = 10
"""Number of relations in the serving measurements."""

CLIP = "CLIPModel fp32"
CLIP_GRAPH = "CLIPModel, graph"
CPU = torch.device("cpu")


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=21, help="timed runs of each variant")
    parser.add_argument("--quick", action="store_true", help="use tiny sizes, to check that it runs")
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    conclude(on_every_device(partial(measure, options.quick, rounds)))


@torch.inference_mode()
def measure(quick: bool, rounds: int, device: torch.device) -> dict[str, Any]:
    """Measure on one device and return the figures."""
    network = make_network(quick).eval().to(device)
    items = make_items(network, BATCH_ITEMS)
    if device.type == "cuda":
        in_bf16(network.backbone, device)
    items = Items(items.text.to(device), items.pictures.to(device))
    figures = {"parameters": sum(weight.numel() for weight in network.parameters())}
    # Differences of 1 % matter here, but single rounds scatter by 2 to 3 %: run twice as many rounds.
    figures |= cost_of_relations(network, items, 2 * rounds)
    if device.type == "cuda":
        figures |= cost_with_graphs(network, items, 2 * rounds, CudaRecorder())
    return figures | (serving(network, items, rounds) if device.type == "cpu" else {})


def cost_of_relations(network: Network, items: Items, rounds: int) -> dict[str, Any]:
    """Measure encoding under many relations, relative to CLIP's two forward passes in the same precision."""

    def encode(context: RelationContext) -> None:
        network.text_vectors(items.text, context)
        network.image_vectors(items.pictures, context)

    def naive(context: RelationContext) -> None:
        backbone = network.backbone
        tokens = (
            joint(backbone.text_tokens(items.text), backbone.text_projection()),
            joint(backbone.image_tokens(items.pictures), backbone.image_projection()),
        )
        for relation in context.vectors:
            for one in tokens:
                naive_vectors(one, relation, network)

    contexts = {count: make_context(network, count) for count in (1, 10, 100)}
    sides: dict[str, Callable[[], object]] = {"CLIPModel": lambda: features(network.backbone, items)}
    sides |= {_relations(count): partial(encode, context) for count, context in contexts.items()}
    timings = interleave(sides, rounds)
    _show(f"encoding {BATCH_ITEMS} texts and pictures, {_where(network)}", timings, "CLIPModel", slower=True)
    loops: dict[str, Callable[[], object]] = {
        f"{count} relations in a loop": partial(naive, contexts[count]) for count in (10, 100)
    }
    looped = interleave({"CLIPModel": sides["CLIPModel"], **loops}, max(2, rounds // 10))
    _show("the same with a naive loop over the relations", looped, "CLIPModel", slower=True)
    return {f"ratio_{count}": timings.ratio(_relations(count), "CLIPModel") for count in (10, 100)}


def cost_with_graphs(network: Network, items: Items, rounds: int, recorder: Recorder) -> dict[str, Any]:
    """Measure the same with the calls recorded as CUDA graphs, those of `CLIPModel` included."""
    inputs = (items.text.ids, items.text.mask, items.text.fields, items.pictures.pixels, items.pictures.grid)

    def clip(*parts: Tensor) -> tuple[Tensor, ...]:
        return features(network.backbone, Items(TextInput(*parts[:3]), PictureInput(*parts[3:])))

    def ours(context: RelationContext, *parts: Tensor) -> tuple[Tensor, ...]:
        text = network.text_vectors(TextInput(*parts[:3]), context)
        return text, network.image_vectors(PictureInput(*parts[3:]), context)

    functions = {CLIP_GRAPH: clip} | {
        f"{_relations(count)}, graph": partial(ours, make_context(network, count)) for count in (10, 100)
    }
    calls = {name: RecordedCalls(function, recorder) for name, function in functions.items()}
    sides: dict[str, Callable[[], object]] = {name: partial(call, *inputs) for name, call in calls.items()}
    timings = interleave(sides | {"CLIPModel": partial(clip, *inputs)}, rounds)
    _show("the same as CUDA graphs", timings, CLIP_GRAPH, slower=True)
    return {
        f"{key}_{count}": timings.ratio(f"{_relations(count)}, graph", reference)
        for count in (10, 100)
        for key, reference in (("graph_ratio", CLIP_GRAPH), ("graph_ratio_to_calls", "CLIPModel"))
    }


def joint(tokens: Tokens, projection: Float[Tensor, "width dim"]) -> Tokens:
    """Project all tokens."""
    return replace(tokens, states=tokens.states @ projection)


def naive_vectors(
    tokens: Tokens, relation: Float[Tensor, " dim"], network: Network
) -> Float[Tensor, "batch dim"]:
    """Return z of eq. 4-6 under one relation without absorbed projections.

    W_K and W_V are applied to every token again for every relation.
    """
    attention, states = network.attention, tokens.states.to(relation.dtype)
    query = attention.query @ relation
    keys, values = states @ attention.key.T, states @ attention.value.T
    scores = keys @ query * ((1 - attention.beta) / states.shape[-1] ** 0.5)
    weights = scores.masked_fill(~tokens.mask, -torch.inf).softmax(dim=-1)
    return F.normalize((weights[:, None] @ values)[:, 0] @ attention.output, dim=-1)


def serving(network: Network, items: Items, rounds: int) -> dict[str, Any]:
    """Compare the towers in each serving engine with `CLIPModel` in fp32; return the figures of the torch engine.

    The engines are measured one after the other, not interleaved. The threads of each engine keep spinning for a while
    after their work and would take CPU time from the next engine.
    """
    backbone = network.backbone
    bf16 = computes_in_bf16()
    towers = {"torch bf16": in_bf16(copy.deepcopy(backbone), CPU)} if bf16 else {"torch fp32": backbone}
    if computes_in_int8():
        towers["torch int8"] = in_int8(backbone, items.text, items.pictures, MIN_INT8_COSINE)
    figures = serve(network, items, towers, rounds)
    if find_spec("openvino"):
        from model.network.inference.openvino import OpenVinoBackbone

        found = {
            f"openvino {name}": OpenVinoBackbone(backbone, items.text, items.pictures, name == "bf16")
            for name in ("fp32", *["bf16"] * bf16)
        }
        serve(network, items, found, rounds)
    return figures


def serve(network: Network, items: Items, towers: Mapping[str, Backbone], rounds: int) -> dict[str, Any]:
    """Print the tables of `towers`; return the figures of the first engine, and by name those of all engines."""
    networks = {name: with_towers(network, tower) for name, tower in towers.items()}
    contexts = {name: make_context(one, RELATIONS) for name, one in networks.items()}
    cut = items.text.take(torch.arange(len(items.text)))  # without padding beyond the longest text

    def texts(text: TextInput, name: str) -> None:
        networks[name].text_vectors(text, contexts[name])

    def pictures(name: str) -> None:
        networks[name].image_vectors(items.pictures, contexts[name])

    def both(name: str) -> None:
        texts(items.text, name)
        pictures(name)

    def time(part: str, clip: Callable[[], object], ours: Callable[[str], object]) -> Timings:
        sides: dict[str, Callable[[], object]] = {CLIP: clip}
        timings = interleave(sides | {name: partial(ours, name) for name in towers}, rounds)
        _show(f"serving {BATCH_ITEMS} {part}", timings, CLIP, slower=False)
        return timings

    backbone, ids, mask = network.backbone, items.text.ids, items.text.mask
    clip_texts = partial(backbone.model.get_text_features, ids, mask)
    time("texts, padded to 77 tokens", clip_texts, partial(texts, items.text))
    time(
        f"texts, ours padded only to the longest text ({cut.ids.shape[1]} tokens)",
        clip_texts,
        partial(texts, cut),
    )
    clip_pictures = partial(backbone.model.get_image_features, items.pictures.pixels)
    time("pictures", clip_pictures, pictures)
    timings = time("texts, padded to 77 tokens, and pictures", partial(features, backbone, items), both)
    cosines = {name: least_cosine(backbone, tower, items) for name, tower in towers.items()}
    for name, cosine in cosines.items():
        print(f"minimum cosine to the features of CLIPModel in fp32, {name}: {cosine:.5f}")
    first = next(iter(towers))
    return {
        "speedup_vs_transformers": timings.ratio(CLIP, first),
        "min_cosine": cosines[first],
        "speedups": {name: timings.ratio(CLIP, name) for name in towers},
        "min_cosines": cosines,
    }


def with_towers(network: Network, towers: Backbone) -> Network:
    """Return a copy of the network with other towers and the same attention."""
    other = copy.copy(network)
    other._modules = {**network._modules, "backbone": towers}
    return other


def make_context(network: Network, count: int) -> RelationContext:
    """Encode relations with random descriptions; the first is the intra-sample relation."""
    device = network.attention.query.device
    return network.context(make_texts(torch.full((count,), 12)).to(device), make_relations(count))


def features(
    backbone: Backbone, items: Items
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
    """Return the features of `CLIPModel` for the same inputs, from two forward passes."""
    model = backbone.model
    text = model.get_text_features(items.text.ids, items.text.mask)
    image = model.get_image_features(items.pictures.pixels.to(backbone.dtype))
    return text.pooler_output, image.pooler_output


def least_cosine(backbone: Backbone, towers: Backbone, items: Items) -> float:
    """Return the minimum cosine between `towers` and `CLIPModel` over all items and both modalities.

    It is computed in the special case in which both should be equal (beta 1, one-hot summary).
    """
    clip = RelationAttention(backbone.dim, beta=1.0, summary_scale=ONE_HOT_SCALE)
    tokens = towers.text_tokens(items.text), towers.image_tokens(items.pictures)
    projections = towers.text_projection().float(), towers.image_projection().float()
    relation = torch.zeros(1, backbone.dim), torch.tensor([True])
    return min(
        float(F.cosine_similarity(clip(one, clip.view(*relation, projection))[:, 0], other).min())
        for one, projection, other in zip(tokens, projections, features(backbone, items), strict=True)
    )


def _relations(count: int) -> str:
    return f"{count} relation{'s' * (count > 1)}"


def _where(network: Network) -> str:
    return f"{network.attention.query.device.type}, {str(network.backbone.dtype).removeprefix('torch.')}"


def _show(title: str, timings: Timings, reference: str, slower: bool) -> None:
    def ratio(side: str) -> float:
        return timings.ratio(side, reference) if slower else timings.ratio(reference, side)

    show(
        title,
        ("", "ms", "quartiles", "relative time" if slower else "relative speed"),
        [[side, *milliseconds(timings, side), f"{ratio(side):.3f}"] for side in timings.seconds],
    )


if __name__ == "__main__":
    main()

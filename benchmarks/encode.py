"""Encoding beside plain CLIP: `python -m benchmarks.encode [--quick]`.

First the cost of relations: text and picture of 16 items under 1, 10 and 100 relations, over CLIP's two forward
passes on the same inputs, in fp32 (bf16 on CUDA); beside it a naive loop, which has a pooling for every relation
without absorbing any projection. Relations are encoded beforehand, once for as long as the weights last.

Then, on a CPU, the speed of serving: transformers' `CLIPModel` in fp32, as it comes, over the same items under
10 relations, in bf16 where the processor computes in it, and by OpenVINO where that is installed; and the cosine
of each to the features of `CLIPModel`, in the special case in which they should be equal (beta 1, one-hot
summary). Texts are padded to 77 tokens on both sides, but for the table that says otherwise.
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
from model.network.inputs import TextInput, Tokens
from model.network.network import Network
from model.network.precision import computes_in_bf16, in_bf16
from model.network.relation_attention import ONE_HOT_SCALE, RelationAttention, RelationContext

BATCH_ITEMS = 16
RELATIONS = 10
"""What serving is measured with."""

CLIP = "CLIPModel fp32"
CPU = torch.device("cpu")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=21, help="timed runs of each side")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    conclude(on_every_device(partial(measure, options.quick, rounds)))


@torch.inference_mode()
def measure(quick: bool, rounds: int, device: torch.device) -> dict[str, Any]:
    """The figures of one device."""
    network = make_network(quick).eval().to(device)
    items = make_items(network, BATCH_ITEMS)
    if device.type == "cuda":
        in_bf16(network.backbone, device)
    items = Items(items.text.to(device), items.pictures.to(device))
    figures = {"parameters": sum(weight.numel() for weight in network.parameters())}
    # A hundredth is to be seen here, and a round scatters by two or three.
    figures |= cost_of_relations(network, items, 2 * rounds)
    return figures | (serving(network, items, rounds) if device.type == "cpu" else {})


def cost_of_relations(network: Network, items: Items, rounds: int) -> dict[str, Any]:
    """Text and picture under many relations over CLIP's two forward passes, in one precision."""

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
    _show(f"{BATCH_ITEMS} texts and pictures, {_where(network)}", timings, "CLIPModel", slower=True)
    loops: dict[str, Callable[[], object]] = {
        f"{count} in a loop": partial(naive, contexts[count]) for count in (10, 100)
    }
    beside = interleave({"CLIPModel": sides["CLIPModel"], **loops}, max(2, rounds // 10))
    _show("the same, naively", beside, "CLIPModel", slower=True)
    return {f"ratio_{count}": timings.ratio(_relations(count), "CLIPModel") for count in (10, 100)}


def joint(tokens: Tokens, projection: Float[Tensor, "width dim"]) -> Tokens:
    """All tokens, projected."""
    return replace(tokens, states=tokens.states @ projection)


def naive_vectors(
    tokens: Tokens, relation: Float[Tensor, " dim"], network: Network
) -> Float[Tensor, "batch dim"]:
    """z of eq. 4-6 under one relation with nothing absorbed: W_K and W_V see every token, every time."""
    attention, states = network.attention, tokens.states.to(relation.dtype)
    query = attention.query @ relation
    keys, values = states @ attention.key.T, states @ attention.value.T
    scores = keys @ query * ((1 - attention.beta) / states.shape[-1] ** 0.5)
    weights = scores.masked_fill(~tokens.mask, -torch.inf).softmax(dim=-1)
    return F.normalize((weights[:, None] @ values)[:, 0] @ attention.output, dim=-1)


def serving(network: Network, items: Items, rounds: int) -> dict[str, Any]:
    """Towers as they may serve, beside `CLIPModel` in fp32.

    Engines are measured one after the other, not interleaved with each other: the threads of each wait busily
    for a while after their work, and would take the processor from the next.
    """
    backbone = network.backbone
    bf16 = computes_in_bf16()
    towers = {"torch bf16": in_bf16(copy.deepcopy(backbone), CPU)} if bf16 else {"torch fp32": backbone}
    figures = serve(network, items, towers, rounds)
    if find_spec("openvino"):
        from model.network.openvino import OpenVinoBackbone

        found = {
            f"openvino {name}": OpenVinoBackbone(backbone, items.text, items.pictures, name == "bf16")
            for name in ("fp32", *["bf16"] * bf16)
        }
        serve(network, items, found, rounds)
    return figures


def serve(network: Network, items: Items, towers: Mapping[str, Backbone], rounds: int) -> dict[str, Any]:
    """The tables of some towers, and the figures of the first."""
    networks = {name: with_towers(network, tower) for name, tower in towers.items()}
    contexts = {name: make_context(one, RELATIONS) for name, one in networks.items()}
    length = int(items.text.mask.sum(dim=1).max())
    cut = TextInput(items.text.ids[:, :length], items.text.mask[:, :length])

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
    time(f"texts, ours padded to the longest, {length}", clip_texts, partial(texts, cut))
    clip_pictures = partial(backbone.model.get_image_features, items.pictures.pixels)
    time("pictures", clip_pictures, pictures)
    timings = time("texts, padded to 77 tokens, and pictures", partial(features, backbone, items), both)
    cosines = {name: least_cosine(backbone, tower, items) for name, tower in towers.items()}
    for name, cosine in cosines.items():
        print(f"least cosine to CLIPModel's features in fp32, {name}: {cosine:.5f}")
    first = next(iter(towers))
    return {"speedup_vs_transformers": timings.ratio(CLIP, first), "min_cosine": cosines[first]}


def with_towers(network: Network, towers: Backbone) -> Network:
    """The network with other towers."""
    other = copy.copy(network)
    other._modules = {**network._modules, "backbone": towers}
    return other


def make_context(network: Network, count: int) -> RelationContext:
    """Relations from random texts: the first is that of an item with itself."""
    device = network.attention.query.device
    return network.context(make_texts(torch.full((count,), 12)).to(device), make_relations(count))


def features(
    backbone: Backbone, items: Items
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
    """What `CLIPModel` makes of the same inputs, in two forward passes."""
    model = backbone.model
    text = model.get_text_features(items.text.ids, items.text.mask)
    image = model.get_image_features(items.pictures.pixels.to(backbone.dtype))
    return text.pooler_output, image.pooler_output


def least_cosine(backbone: Backbone, towers: Backbone, items: Items) -> float:
    """Over all items and both modalities, of `towers` to `CLIPModel` in the case in which they are the same."""
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
        ("", "ms", "quartiles", "times as slow" if slower else "times as fast"),
        [[side, *milliseconds(timings, side), f"{ratio(side):.3f}"] for side in timings.seconds],
    )


if __name__ == "__main__":
    main()

"""Tiny random weights in the layouts of the released models, and their forward passes written independently.

Each pass works on the released names directly, with torch's own functions, and shares no code with `model/systems`.
"""

import gzip
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from model.systems.released_processors import MERGES_FILE

Weights = dict[str, Tensor]

MERGES = (("h", "a"), ("ha", "t</w>"), ("r", "e"), ("re", "d</w>"))
VOCABULARY = 2 * 256 + len(MERGES) + 2
CONTEXT = 24
DIM = 12


def write_merges(folder: Path) -> None:
    lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES), ""]
    (folder / MERGES_FILE).write_bytes(gzip.compress("\n".join(lines).encode()))


def draw_picture(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> Path:
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def pixels(
    path: Path, resized: int, side: int, kernel: Image.Resampling, mean: Tensor, std: Tensor
) -> Tensor:
    """Resize the shorter side, crop the centre and normalise; the picture is wider or taller by less than 2 x."""
    with Image.open(path) as picture:
        scale = resized / min(picture.size)
        width, height = (int(length * scale) for length in picture.size)
        small = picture.convert("RGB").resize((width, height), kernel)
    left, top = (width - side) // 2, (height - side) // 2
    values = torch.from_numpy(np.array(small.crop((left, top, left + side, top + side)))) / 255
    return ((values - mean) / std).permute(2, 0, 1)[None]


def random(*shape: int) -> Tensor:
    return torch.randn(*shape) * 0.3


def norm(prefix: str, width: int) -> Weights:
    return {f"{prefix}.weight": 1 + random(width), f"{prefix}.bias": random(width)}


def linear(prefix: str, inner: int, outer: int) -> Weights:
    return {f"{prefix}.weight": random(outer, inner), f"{prefix}.bias": random(outer)}


def blocks(prefix: str, width: int, layers: int, names: Sequence[str]) -> Weights:
    """Return blocks of multi-head attention; `names` are those of the norms, the first and the second linear layer."""
    first, second, up, down = names
    found: Weights = {}
    for layer in range(layers):
        block = f"{prefix}.{layer}"
        found |= norm(f"{block}.{first}", width) | norm(f"{block}.{second}", width)
        found |= {
            f"{block}.attn.in_proj_weight": random(3 * width, width),
            f"{block}.attn.in_proj_bias": random(3 * width),
        }
        found |= linear(f"{block}.attn.out_proj", width, width)
        found |= linear(f"{block}.mlp.{up}", width, 4 * width) | linear(
            f"{block}.mlp.{down}", 4 * width, width
        )
    return found


class Pass:
    """Forward pass over released weights."""

    def __init__(
        self, weights: Mapping[str, Tensor], epsilon: float, quick: bool, names: Sequence[str]
    ) -> None:
        self.weights = weights
        self.epsilon = epsilon
        self.quick = quick
        self.names = names

    def norm(self, states: Tensor, prefix: str) -> Tensor:
        weight, bias = self.weights[f"{prefix}.weight"], self.weights[f"{prefix}.bias"]
        return F.layer_norm(states, weight.shape, weight, bias, self.epsilon)

    def linear(self, states: Tensor, prefix: str) -> Tensor:
        return F.linear(states, self.weights[f"{prefix}.weight"], self.weights.get(f"{prefix}.bias"))

    def gelu(self, states: Tensor) -> Tensor:
        return states * torch.sigmoid(1.702 * states) if self.quick else F.gelu(states)

    def layers(self, prefix: str) -> Iterator[str]:
        layer = 0
        while f"{prefix}.{layer}.{self.names[0]}.weight" in self.weights:
            yield f"{prefix}.{layer}"
            layer += 1

    def blocks(self, states: Tensor, prefix: str, heads: int, causal: bool) -> Tensor:
        first, second, up, down = self.names
        tokens, width = states.shape[1:]
        mask = torch.full((tokens, tokens), float("-inf")).triu(1) if causal else None
        for block in self.layers(prefix):
            attention = torch.nn.MultiheadAttention(width, heads, batch_first=True)
            attention.load_state_dict(
                {
                    name.removeprefix(f"{block}.attn."): weight
                    for name, weight in self.weights.items()
                    if name.startswith(f"{block}.attn.")
                }
            )
            read = self.norm(states, f"{block}.{first}")
            states = states + attention(read, read, read, attn_mask=mask, need_weights=False)[0]
            read = self.norm(states, f"{block}.{second}")
            inner = self.gelu(self.linear(read, f"{block}.mlp.{up}"))
            states = states + self.linear(inner, f"{block}.mlp.{down}")
        return states


def unit(vector: Tensor) -> np.ndarray:
    return F.normalize(vector, dim=-1).detach().numpy()

"""Precision and engine of a network whose weights no longer change.

Only the two towers are concerned, which take nearly all the time. The relation-guided attention stays as it is,
in torch and fp32: it costs a hundredth of a tower, and tells apart what differs by little.
"""

from collections.abc import Mapping

import torch
from PIL import Image

from model.config import Precision, TowerEngine
from model.errors import InputError

from .backbones import Backbone
from .processor import Preprocessor

MIN_BF16_WIDTH = 256
"""Narrower towers stay fp32 on a CPU: at a width of 128, bf16 takes longer for a single text or picture."""

BF16_CAPABILITIES = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""What torch calls a processor's products of bf16 matrices: of x86, then of ARM."""


def inference_backbone(
    backbone: Backbone,
    preprocessor: Preprocessor,
    precision: Precision,
    engine: TowerEngine,
    device: torch.device,
) -> Backbone:
    """Prepare the towers as they are asked for: `backbone` itself, in fp32 or bf16, or OpenVINO in its place.

    `auto` is bf16 on CUDA, and on a CPU that computes in it unless the towers are too narrow to gain by it.

    Raises:
        InputError: OpenVINO is asked for, and is not installed, cannot run these towers, or CUDA is asked for.
    """
    bf16 = precision == "bf16" or (precision == "auto" and _gains_by_bf16(backbone, device))
    if engine == "openvino":
        if device.type != "cpu":
            raise InputError("OpenVINO is for the CPU here; use --device cpu with --engine openvino.")
        from .openvino import OpenVinoBackbone

        # Two of different shape, of which the first alone is traced: what it mistook for a constant shows.
        texts = preprocessor.tokenize(["a", "a longer text"])
        pictures = preprocessor.blank(2)
        for row, size in enumerate(((64, 64), (96, 32))):
            preprocessor.decode(Image.new("RGB", size, "white"), pictures, row)
        return OpenVinoBackbone(backbone, texts, preprocessor.normalise(pictures), bf16)
    return in_bf16(backbone, device) if bf16 else backbone


def in_bf16(backbone: Backbone, device: torch.device) -> Backbone:
    """Cast the weights of `backbone` to bf16, in place."""
    if device.type == "cpu":
        # Torch's fused attention takes a tenth longer than plain products there, in bf16 and for so few tokens.
        backbone.model.set_attn_implementation("eager")
    return backbone.to_bfloat16()


def _gains_by_bf16(backbone: Backbone, device: torch.device) -> bool:
    if device.type == "cuda":
        return cuda_computes_in_bf16(device)
    return backbone.dim >= MIN_BF16_WIDTH and computes_in_bf16()


def computes_in_bf16() -> bool:
    """Whether this processor multiplies bf16 matrices; others emulate it, slower than fp32."""
    if not hasattr(torch.cpu, "get_capabilities"):  # before torch 2.12 or so
        return torch.cpu._is_avx512_bf16_supported()
    capabilities: Mapping[str, object] = torch.cpu.get_capabilities()
    return any(capabilities.get(name) is True for name in BF16_CAPABILITIES)


def cuda_computes_in_bf16(device: torch.device) -> bool:
    """Whether this is a CUDA device that multiplies bf16 matrices: before Ampere, they are emulated, slowly."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)

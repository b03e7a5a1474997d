"""Numeric precision and inference engine of a trained network.

Both settings apply only to the two towers, which take nearly all of the time. The relation-guided attention always
runs in torch and fp32: it takes a hundredth of the time of a tower, and it must resolve small differences.
"""

from collections.abc import Mapping

import torch
from PIL import Image

from model.config import Precision, TowerEngine
from model.errors import InputError

from .backbones import Backbone
from .processor import Preprocessor

MIN_BF16_WIDTH = 256
"""Minimum vector length (`Backbone.dim`) for bf16 on a CPU.

At a length of 128, the towers are so narrow that bf16 is slower than fp32 for a single text or picture.
"""

BF16_CAPABILITIES = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""Torch's names for CPU features that multiply bf16 matrices in hardware: first x86, then ARM."""


def inference_backbone(
    backbone: Backbone,
    preprocessor: Preprocessor,
    precision: Precision,
    engine: TowerEngine,
    device: torch.device,
) -> Backbone:
    """Return the towers for inference: `backbone` itself in fp32 or bf16, or its OpenVINO version.

    `auto` selects bf16 if the device multiplies bf16 matrices in hardware. On a CPU, the vectors must also be at
    least `MIN_BF16_WIDTH` long.

    Raises:
        InputError: OpenVINO is requested but not installed, cannot run these towers, or `device` is not a CPU.
    """
    bf16 = precision == "bf16" or (precision == "auto" and _gains_by_bf16(backbone, device))
    if engine == "openvino":
        if device.type != "cpu":
            raise InputError("OpenVINO runs only on the CPU. Use --device cpu with --engine openvino.")
        from .openvino import OpenVinoBackbone

        # The trace uses only the first of two inputs with different shapes, and the comparison with torch uses both.
        # This detects a shape that the trace recorded as a constant.
        texts = preprocessor.tokenize(["a", "a longer text"])
        pictures = preprocessor.blank(2)
        for row, size in enumerate(((64, 64), (96, 32))):
            preprocessor.decode(Image.new("RGB", size, "white"), pictures, row)
        return OpenVinoBackbone(backbone, texts, preprocessor.normalise(pictures), bf16)
    return in_bf16(backbone, device) if bf16 else backbone


def in_bf16(backbone: Backbone, device: torch.device) -> Backbone:
    """Cast the weights of `backbone` to bf16 in place and return it."""
    if device.type == "cpu":
        # In bf16 on a CPU, fused attention takes a tenth longer than eager attention for the short inputs of a tower.
        backbone.model.set_attn_implementation("eager")
    return backbone.to_bfloat16()


def _gains_by_bf16(backbone: Backbone, device: torch.device) -> bool:
    if device.type == "cuda":
        return cuda_computes_in_bf16(device)
    return backbone.dim >= MIN_BF16_WIDTH and computes_in_bf16()


def computes_in_bf16() -> bool:
    """Return whether this CPU multiplies bf16 matrices in hardware; emulation is slower than fp32."""
    if not hasattr(torch.cpu, "get_capabilities"):  # torch before about 2.12
        return torch.cpu._is_avx512_bf16_supported()
    capabilities: Mapping[str, object] = torch.cpu.get_capabilities()
    return any(capabilities.get(name) is True for name in BF16_CAPABILITIES)


def cuda_computes_in_bf16(device: torch.device) -> bool:
    """Return whether `device` is a CUDA device with bf16 hardware; GPUs older than Ampere emulate bf16 slowly."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)

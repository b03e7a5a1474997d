"""Numeric precision and inference engine of a trained network.

Both settings apply only to the two towers, which take nearly all of the time. The relation-guided attention always
runs in torch and fp32: it takes a hundredth of the time of a tower, and it must resolve small differences.
"""

from collections.abc import Mapping
from importlib.util import find_spec

import numpy as np
import torch
from PIL import Image

from model.config import TowerEngine, TowerPrecision
from model.errors import InputError
from model.network.backbones import Backbone
from model.network.inputs import PictureInput, TextInput
from model.network.processor import Preprocessor

from .int8 import MIN_AUTO_COSINE, MIN_INT8_COSINE, computes_in_int8, in_int8
from .packed_linear import PackedLinear, packs_weights, replace_layers

MIN_WIDTH = 256
"""Minimum vector length (`Backbone.dim`) for bf16, int8 and OpenVINO on a CPU, unless they are requested.

At a length of 128, the towers are so narrow that bf16 is slower than fp32 for a single text or picture.
"""

NO_BF16 = "this processor has no bf16"
HAS_BF16 = "this processor computes in bf16"

BF16_CAPABILITIES = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""Torch's names for CPU features that multiply bf16 matrices in hardware: first x86, then ARM."""


def inference_backbone(
    backbone: Backbone,
    preprocessor: Preprocessor,
    precision: TowerPrecision,
    engine: TowerEngine,
    device: torch.device,
) -> Backbone:
    """Return the towers for inference: `backbone` itself in fp32 or bf16, or its version in int8 or by OpenVINO.

    The precision `auto` selects bf16 if the device multiplies bf16 matrices in hardware. If a CPU does not, it selects
    int8 by torch, provided that the samples are exact enough (`MIN_AUTO_COSINE`). The engine `auto` selects OpenVINO
    on a CPU if it is installed and can run the towers. Towers narrower than `MIN_WIDTH` stay in fp32 by torch.

    Raises:
        InputError: a precision or engine other than `auto` is not installed, cannot run these towers, or does not run
            on `device`.
    """
    if device.type != "cpu":
        return _on_gpu(backbone, precision, engine, device)
    if engine == "cuda-graphs":
        raise InputError("CUDA graphs run only on a GPU. Use --device cuda with --engine cuda-graphs.")
    wide = backbone.dim >= MIN_WIDTH
    bf16 = precision == "bf16" or (precision == "auto" and wide and computes_in_bf16())
    refused = ""
    tries_int8 = precision == "auto" and engine != "openvino" and wide and not bf16 and computes_in_int8()
    if precision == "int8" or tries_int8:
        if engine == "openvino":
            raise InputError(
                "The towers run in int8 only by torch. Use --engine torch with --precision int8."
            )
        least = MIN_AUTO_COSINE if tries_int8 else MIN_INT8_COSINE
        try:
            return _chosen(in_int8(backbone, *_samples(preprocessor), least), tries_int8, NO_BF16)
        except InputError as error:
            if not tries_int8:
                raise
            refused = f"{NO_BF16}, and int8 was refused ({error})"
    if engine == "openvino" or (engine == "auto" and wide and find_spec("openvino")):
        try:
            from .openvino import OpenVinoBackbone

            compiled = OpenVinoBackbone(backbone, *_samples(preprocessor), bf16)
            return _chosen(compiled, engine == "auto", refused or "it is installed")
        except InputError as error:
            if engine == "openvino":
                raise
            refused = str(error)
    towers = in_bf16(backbone, device) if bf16 else backbone
    return _chosen(towers, bool(refused) or (bf16 and precision == "auto"), refused or HAS_BF16)


def _on_gpu(
    backbone: Backbone, precision: TowerPrecision, engine: TowerEngine, device: torch.device
) -> Backbone:
    if engine == "openvino":
        raise InputError("OpenVINO runs only on the CPU. Use --device cpu with --engine openvino.")
    if precision == "int8":
        raise InputError("The towers run in int8 only on a CPU. Use --device cpu with --precision int8.")
    if precision == "bf16" or (precision == "auto" and cuda_computes_in_bf16(device)):
        return in_bf16(backbone, device)
    return backbone


def _chosen(backbone: Backbone, automatic: bool, reason: str) -> Backbone:
    """Note the reason on `backbone` if `auto` chose it."""
    backbone.reason = reason if automatic else ""
    return backbone


def _samples(preprocessor: Preprocessor) -> tuple[TextInput, PictureInput]:
    """Return inputs on which an engine is compared with torch in fp32.

    The trace of OpenVINO uses only the first of two inputs with different shapes, and the comparison uses both. This
    detects a shape that the trace recorded as a constant.
    """
    texts = preprocessor.tokenize(["a", "Stainless steel water bottle, 750 ml, blue (pack of 2)"])
    pictures = preprocessor.blank(2)
    noise = np.random.default_rng(0).integers(0, 256, (32, 96, 3), dtype=np.uint8)
    for row, picture in enumerate((Image.new("RGB", (64, 64), "white"), Image.fromarray(noise))):
        preprocessor.decode(picture, pictures, row)
    return texts, preprocessor.normalise(pictures)


def in_bf16(backbone: Backbone, device: torch.device) -> Backbone:
    """Cast the weights of `backbone` to bf16 in place and return it."""
    if device.type == "cpu":
        # In bf16 on a CPU, fused attention takes a tenth longer than eager attention for the short inputs of a tower.
        backbone.model.set_attn_implementation("eager")
        backbone.to_bfloat16()
        if packs_weights() and computes_in_bf16():
            replace_layers(backbone.model, PackedLinear)
        return backbone
    return backbone.to_bfloat16()


def computes_in_bf16() -> bool:
    """Return whether this CPU multiplies bf16 matrices in hardware; emulation is slower than fp32."""
    if not hasattr(torch.cpu, "get_capabilities"):  # torch before about 2.12
        return torch.cpu._is_avx512_bf16_supported()
    capabilities: Mapping[str, object] = torch.cpu.get_capabilities()
    return any(capabilities.get(name) is True for name in BF16_CAPABILITIES)


def cuda_computes_in_bf16(device: torch.device) -> bool:
    """Return whether `device` is a CUDA device with bf16 hardware; GPUs older than Ampere emulate bf16 slowly."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)

"""Fine-tuning modes of a pretrained network: everything learns, or low-rank adapters (LoRA), or the attention alone.

For people with small GPUs: without gradients for the towers' weights, neither these nor Adam's two moments
take any room.
"""

from collections.abc import Callable

from torch import nn

from model.config import TrainConfig
from model.errors import InputError
from model.network.network import Network


def select_trainable(network: Network, config: TrainConfig) -> Callable[[], None]:
    """Leave only what should learn with `requires_grad`; returns what makes the network plain again.

    LoRA (Hu et al. 2021, arXiv 2106.09685) through peft: adapters of rank r beside every linear layer of both
    towers, with alpha = 2r, merged into the weights in the end, so that a checkpoint does not tell. Torch's own
    attention (SigLIP's pooling head) takes the weight of its output layer past any adapter, which would first
    count when it is merged; there is none beside that layer.

    Raises:
        InputError: LoRA is asked for, and peft is not installed.
    """
    if config.tune == "full":
        return lambda: None
    for weight in network.backbone.parameters():
        weight.requires_grad_(False)
    if config.tune == "frozen":
        return lambda: None
    try:
        from peft import LoraConfig, LoraModel
    except ImportError:
        raise InputError(
            "--tune lora needs peft, which is not installed: pip install 'rcml[lora]'."
        ) from None
    model = network.backbone.model
    passed_by = [
        f"{name}.out_proj"
        for name, module in model.named_modules()
        if isinstance(module, nn.MultiheadAttention)
    ]
    options = LoraConfig(
        r=config.lora_rank,
        lora_alpha=2 * config.lora_rank,
        target_modules="all-linear",
        exclude_modules=passed_by or None,
    )
    adapted = LoraModel(model, options, "default")

    def merge() -> None:
        network.backbone.model = adapted.merge_and_unload()

    return merge

"""Fine-tuning of a pretrained network: all weights, low-rank adapters (LoRA), or only what follows the towers.

The last two modes fit on small GPUs. They freeze the weights of the towers, so these weights need no memory for
gradients or for Adam's two moments. Frozen towers also encode every item only once (`model/network/token_cache.py`).
"""

from collections.abc import Callable

from torch import nn

from model.config import TrainConfig
from model.errors import InputError
from model.network.network import Network


def select_trainable(network: Network, config: TrainConfig) -> Callable[[], None]:
    """Freeze the weights that `config.tune` does not train, and return a function to call after training.

    The towers store few activations if `config.gradient_checkpointing` is set.

    With LoRA (Hu et al. 2021, arXiv 2106.09685), peft adds adapters of rank r, with alpha = 2r, to the linear layers of
    both towers. The returned function merges the adapters into the weights, so the checkpoint has the same layout as
    after full fine-tuning. In the other modes it does nothing.

    `nn.MultiheadAttention` (in SigLIP's pooling head) reads the weight of its output layer directly and bypasses any
    adapter there. Such an adapter would take effect only after the merge, so this layer gets no adapter.

    Raises:
        InputError: LoRA is requested, but peft is not installed; or the towers cannot compute their activations again.
    """
    if config.gradient_checkpointing:
        _checkpoint_activations(network)
    if config.tune == "full":
        return lambda: None
    for weight in network.backbone.parameters():
        weight.requires_grad_(False)
    if config.tune == "frozen":
        for weight in network.backbone.projection_weights():
            weight.requires_grad_(True)
        return lambda: None
    try:
        from peft import LoraConfig, LoraModel
    except ImportError:
        raise InputError(
            "--tune lora requires peft, which is not installed. Run `pip install 'rcml[lora]'`."
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


def _checkpoint_activations(network: Network) -> None:
    """Make the towers compute the activations of each layer again in the backward pass (Chen et al. 2016).

    Only the input of each layer is stored (arXiv 1604.06174). Dropout draws the same numbers again, so the gradients
    stay the same.

    Raises:
        InputError: the towers cannot do this.
    """
    try:
        for tower in (network.backbone.model.text_model, network.backbone.model.vision_model):
            enable = getattr(tower, "activation_checkpointing_enable", None)
            enable = (
                enable or tower.gradient_checkpointing_enable
            )  # its name in older releases of transformers
            enable({"use_reentrant": False})
    except ValueError as error:
        raise InputError(
            f"--gradient-checkpointing cannot be used with this backbone: {error} Omit the option. --micro-batch also "
            "saves memory."
        ) from None

"""Import of packages that only some systems need."""

from importlib import import_module
from types import ModuleType

from model.errors import InputError
from model.network.backbone_config import shortened


def import_optional(module: str) -> ModuleType:
    """Import a package of the extra `systems`.

    Raises:
        InputError: the package, or one that it needs, is missing or cannot be loaded.
    """
    try:
        return import_module(module)
    except (ImportError, RuntimeError) as error:
        # torchvision raises a RuntimeError if it was built for another torch.
        raise InputError(
            f"{module} cannot be imported ({shortened(error)}). Run `pip install 'rcml[systems]'`. The releases of "
            "torch and torchvision must belong together."
        ) from None

"""Compilation of the towers' layers and of the relation-guided attention with `torch.compile`, for training steps only.

The layers of a tower are alike, so they share one graph, whose compilation takes as long for twelve layers as for one.
A graph of a whole tower repeats the work for each layer: minutes on an H100 for the two towers of ViT-B/32.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from torch._dynamo import config as dynamo

from model.config import Compile
from model.console import say
from model.errors import InputError
from model.network.network import Network

Result = TypeVar("Result")

MIN_STEPS = 1_000
"""Minimum number of steps of a training run that `auto` compiles: shorter runs end before compilation pays off."""

MAX_GRAPHS = 32
"""Maximum number of graphs of all modules together: layers of both towers and attention, with and without gradients."""

MAX_REASON = 200
"""Maximum number of characters of the reason that a warning gives; a compiler may print pages."""

Backend = str | Callable[..., Any]
"""Compiler of torch.compile, by its name or as a function."""


class Compilation:
    """Compiled modules of a network, used only inside `run`, or none.

    The modules are compiled in place, so the names of the weights and `Network.version` stay. Validation runs without
    compilation, which would be repeated for evaluation mode and for other shapes.

    Sizes are dynamic from the start: a batch has a different number of items in every step, and relations and items
    share one graph of the text layers. Dropout draws the same numbers as without compilation, because a micro-batch is
    encoded by two graphs, the first of which has no gradient.
    """

    def __init__(self, network: Network, wanted: bool, backend: Backend = "inductor") -> None:
        self._compiled: list[tuple[nn.Module, Any]] = []
        if not wanted:
            return
        towers = network.backbone.model
        options: dict[str, Any] | None = {"fallback_random": True} if backend == "inductor" else None
        for module in (*layers(towers.text_model), *layers(towers.vision_model), network.attention):
            compiled = torch.compile(module._call_impl, backend=backend, dynamic=True, options=options)
            self._compiled.append((module, compiled))

    @property
    def active(self) -> bool:
        """Whether `run` uses compiled modules."""
        return bool(self._compiled)

    def run(self, compute: Callable[[], Result], repeatable: Callable[[], bool] = lambda: True) -> Result:
        """Call `compute` with the compiled modules; if that fails, say why, and call it without them from now on.

        Raises:
            InputError: `compute` failed when it was no longer `repeatable`.
        """
        if not self._compiled:
            return compute()
        try:
            # Dynamo looks at the `grad` of every input, which torch warns about.
            with (
                self._in_place(),
                dynamo.patch(recompile_limit=MAX_GRAPHS),
                warnings.catch_warnings(action="ignore", category=UserWarning),
            ):
                return compute()
        except (
            Exception
        ) as error:  # a compiler can fail in any way; an error of another kind will be raised again
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:MAX_REASON]}"
            if not repeatable():
                raise InputError(
                    f"A compiled step failed on one of several processes ({reason}). Start again with --compile off, "
                    "and with --resume if the run was saved."
                ) from error
            say(
                f"Warning: torch.compile failed ({reason}). Training goes on without it; --compile off avoids this "
                "message."
            )
        self._compiled = []
        return compute()

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        for module, compiled in self._compiled:
            module._compiled_call_impl = compiled
        try:
            yield
        finally:
            for module, _ in self._compiled:
                module._compiled_call_impl = None


def layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of a tower: what its outermost lists of modules contain."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from layers(child)


def compiles(choice: Compile, device: torch.device, steps: int) -> bool:
    """Return whether to compile a run of `steps` steps: `auto` compiles long runs on CUDA."""
    return choice == "on" or (choice == "auto" and device.type == "cuda" and steps >= MIN_STEPS)

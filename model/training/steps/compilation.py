"""Compilation of the towers and of the relation-guided attention with `torch.compile`, for training steps only."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from model.config import Compile
from model.console import say
from model.errors import InputError
from model.network.network import Network

Result = TypeVar("Result")

MAX_REASON = 200
"""Maximum number of characters of the reason that a warning gives; a compiler may print pages."""

Backend = str | Callable[..., Any]
"""Compiler of torch.compile, by its name or as a function."""


class Compilation:
    """Compiled modules of a network, used only inside `run`, or none.

    The modules are compiled in place, so the names of the weights and `Network.version` stay. Validation runs without
    compilation, which would be repeated for evaluation mode and for other shapes.

    Sizes are dynamic from the start: a batch has a different number of items in every step, and relations and items
    share one graph of the text tower. Dropout draws the same numbers as without compilation, because a micro-batch is
    encoded by two graphs, the first of which has no gradient.
    """

    def __init__(self, network: Network, wanted: bool, backend: Backend = "inductor") -> None:
        self._compiled: list[tuple[nn.Module, Any]] = []
        if not wanted:
            return
        towers = network.backbone.model
        options: dict[str, Any] | None = {"fallback_random": True} if backend == "inductor" else None
        for module in (towers.text_model, towers.vision_model, network.attention):
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
            with self._in_place(), warnings.catch_warnings(action="ignore", category=UserWarning):
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


def compiles(choice: Compile, device: torch.device) -> bool:
    """Return whether to compile: `auto` compiles on CUDA."""
    return choice == "on" or (choice == "auto" and device.type == "cuda")

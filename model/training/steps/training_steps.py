"""Training steps, whose figures are read and checked while the device computes the next step."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn

from model.config import TrainConfig
from model.errors import TrainingError
from model.network.network import Network
from model.training.batches import Batch, Queue
from model.training.objectives.batch_loss import BatchLoss
from model.training.optimizer import peak_rate, schedule
from model.training.run_state import TrainingState

from .compilation import Compilation
from .delayed_figures import DelayedFigures
from .gradients import Gradients


@dataclass(frozen=True)
class _Taken:
    """A step that was taken; the device may still compute its figures (loss, norm of the gradient).

    `items` are those of its batch, as positions in the training data, and `pairs` is the number of its pairs.
    """

    step: int
    items: Int[ndarray, " items"]
    pairs: int
    figures: DelayedFigures
    rate: float
    started: float
    waited: float


class TrainingSteps:
    """Steps of one training run: gradients, clipping and optimizer.

    `astray` creates the error for a step, its items, its loss and the norm of its gradient, if one is not finite.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: Network,
        loss: BatchLoss,
        gradients: Gradients,
        optimizer: torch.optim.Optimizer,
        compilation: Compilation,
        astray: Callable[[int, Int[ndarray, " items"], float, float], TrainingError],
    ) -> None:
        self._config = config
        self._network = network
        self._gradients = gradients
        self._optimizer = optimizer
        self._compilation = compilation
        self._astray = astray
        self._weights = [
            weight for part in (network, loss) for weight in part.parameters() if weight.requires_grad
        ]
        self._taken: deque[_Taken] = deque()
        self._ready_at = 0.0

    def take(self, step: int, queue: Queue) -> None:
        """Train on the next batch; the figures of the step are read later, by `read`."""
        self._network.train()
        started = time.perf_counter()
        batch = queue.take()
        waited = time.perf_counter() - started
        rate = peak_rate(self._config) * schedule(step, self._config)
        for parameters in self._optimizer.param_groups:
            parameters["lr"] = rate * parameters["share"]
        loss = self._compilation.run(lambda: self._loss(batch, step), lambda: self._gradients.repeatable)
        norm = nn.utils.clip_grad_norm_(self._weights, self._config.max_gradient_norm)
        self._optimizer.step()
        figures = DelayedFigures(loss, norm)
        self._taken.append(_Taken(step, batch.items, batch.pairs.count, figures, rate, started, waited))

    def _loss(self, batch: Batch, step: int) -> Float[Tensor, ""]:
        self._optimizer.zero_grad(set_to_none=True)
        return self._gradients.of(batch, step)

    def read(self, state: TrainingState, unread: int) -> Iterator[tuple[int, dict[str, float]]]:
        """Record all steps except the last `unread` ones in `state`; yield each of them with its metrics.

        Raises:
            TrainingError: the loss or its gradient is not finite.
        """
        while len(self._taken) > unread:
            taken = self._taken.popleft()
            loss, norm = taken.figures.read()
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise self._astray(taken.step, taken.items, loss, norm)
            ready = taken.figures.ready_at
            seconds = ready - max(taken.started, self._ready_at)  # two steps may overlap
            self._ready_at = ready
            state.count(taken.step, loss, taken.pairs, seconds, taken.waited)
            yield (
                taken.step,
                {
                    "loss": loss,
                    "rate": taken.rate,
                    "gradient_norm": norm,
                    "pairs_per_second": taken.pairs / seconds,
                },
            )

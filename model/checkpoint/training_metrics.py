"""`metrics.json` of a checkpoint: figures of its training and of its validation.

The trainer writes the file. The evaluation reads it to check the objective of a checkpoint.
"""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from model.config import Objective
from model.errors import ArtifactError
from model.plain_file import read_plain

METRICS_FILE = "metrics.json"


class ValidationFigures(BaseModel):
    """Figures of one validation: its step, the mean loss since the previous one, and Hit@5 among 21 candidates."""

    model_config = ConfigDict(frozen=True, extra="allow")

    step: int
    loss: float
    validation_hit_at_5: float


class TrainingMetrics(BaseModel):
    """Content of `metrics.json`, with one field per key.

    `validation_hit_at_5` was measured with the weights in the checkpoint, and `best_step` is the step of the best
    validation. `seconds` is the time spent in training steps, `data_wait_share` the share of it spent waiting for
    batches, and `ranks` the number of processes. Additional keys from another version of rcml are kept and written
    after the known keys.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    objective: Objective
    steps: int
    best_step: int
    validation_hit_at_5: float
    validation_validity_accuracy: float
    parameters: int
    device: str
    ranks: int
    seconds: float
    pairs_per_second: float
    data_wait_share: float
    history: tuple[ValidationFigures, ...]

    @classmethod
    def load(cls, folder: Path) -> "TrainingMetrics":
        """Read `metrics.json` in `folder`.

        Raises:
            ArtifactError: another version of rcml wrote the file with other keys.
        """
        path = folder / METRICS_FILE
        try:
            return cls.model_validate_json(read_plain(path))
        except ValidationError as error:
            keys = ", ".join(str(fault["loc"][0]) for fault in error.errors() if fault["loc"])
            raise ArtifactError(
                f"{path} does not match this version of rcml (missing or invalid: {keys or 'its JSON'}). "
                "Train the checkpoint again with this version."
            ) from None

    def save(self, folder: Path) -> None:
        """Write `metrics.json` into `folder`."""
        text = json.dumps(self.model_dump(mode="json"), indent=2) + "\n"
        (folder / METRICS_FILE).write_text(text, encoding="utf-8")

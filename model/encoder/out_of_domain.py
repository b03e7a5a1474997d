"""Out-of-domain evaluation: a checkpoint on a folder that it was not trained on, as the paper does with Goodreads.

The relations of the folder are not in the checkpoint. They are encoded from their descriptions, as a free-text relation
of a request is: with the centre of the trained relations, the calibration of claims as it is, and no bias for a
relation type. All items of the folder must be new to the network, so folders that were prepared again from the training
data are refused.
"""

from dataclasses import replace
from pathlib import Path

from model.checkpoint.checkpoint import Checkpoint
from model.data.prepared_data import Prepared
from model.errors import ArtifactError, MismatchError

from .encoder import Encoder


def is_out_of_domain(checkpoint: Checkpoint, prepared: Prepared) -> bool:
    """Return whether the checkpoint was trained on other folders than `prepared`, which may be one of several."""
    digests = {
        digest
        for name, digest in checkpoint.manifest.parents.items()
        if name == "prepared" or name.startswith("prepared-")
    }
    return prepared.manifest.digest not in digests


def refuse_seen(checkpoint: Checkpoint, prepared: Prepared) -> None:
    """Refuse prepared data whose items the network may have seen, although it was not trained on this very folder.

    Raises:
        MismatchError: the folder is the training folder with other contents, has a relation of the checkpoint, or has
            items of the training folder.
    """
    trained = {relation.description for relation in checkpoint.relations if not relation.intra}
    shared = next((one for one in prepared.relations if one.description in trained), None)
    folders = training_folders(checkpoint)
    if shared is not None or prepared.path.absolute() in {folder.absolute() for folder in folders}:
        raise MismatchError(
            f"{checkpoint.path} was not trained on the current contents of {prepared.path}, so it may have been "
            "trained on the test items. Train it again on this data, or set --prepared to the data that it was trained "
            "on, or to a folder of another domain."
        )
    own = {(item.item_id, item.title) for item in prepared.items}
    for folder in folders:
        data = _opened(folder, checkpoint)
        seen = next((one for one in data.items if (one.item_id, one.title) in own), None) if data else None
        if seen is not None:
            raise MismatchError(
                f"{checkpoint.path} was trained on {folder}, which also has items of {prepared.path}, such as "
                f"{seen.item_id!r}. Evaluate on the training folder, or on a folder without its items."
            )


def training_folders(checkpoint: Checkpoint) -> tuple[Path, ...]:
    """Return the folders that the options of the checkpoint name; they may have been moved since."""
    recorded = (checkpoint.config.model_extra or {}).get("prepared", ())
    return tuple(Path(one) for one in ([recorded] if isinstance(recorded, str) else recorded))


def warning(checkpoint: Checkpoint, prepared: Prepared) -> str:
    """Say in the report that the evaluation is out of domain, and whether the items could be compared."""
    folders = training_folders(checkpoint)
    missing = [str(folder) for folder in folders if _opened(folder, checkpoint) is None]
    checked = (
        f"Whether it has seen some of the items could not be checked, because {', '.join(missing)} has changed or is "
        "gone."
        if missing or not folders
        else "It has seen none of the items."
    )
    return (
        f"Out of domain: {checkpoint.path} was not trained on {prepared.path}, and its relations are encoded from "
        f"their descriptions alone. {checked} The baselines are fitted on this domain, so they know more of it."
    )


def under_relations_of(
    prepared: Prepared, checkpoint: Checkpoint, encoder: Encoder
) -> tuple[Checkpoint, Encoder]:
    """Return the checkpoint and its encoder under the relations of `prepared`, in their order.

    A relation with a trained description keeps its bias among the relation types; another has none (0, the mean).
    """
    if [one.description for one in checkpoint.relations] == [one.description for one in prepared.relations]:
        return checkpoint, encoder
    encoder = encoder.with_relations(prepared.relations)
    trained = [one.description for one in checkpoint.relations if not one.intra]
    asked = [one.description for one in prepared.relations if not one.intra]
    calibration = checkpoint.calibration
    scalings = {}
    for similarity, scaling in calibration.relation_types.items():
        biases = dict(zip(trained, scaling.biases, strict=False))
        scalings[similarity] = scaling.model_copy(
            update={"biases": tuple(biases.get(description, 0.0) for description in asked)}
        )
    return (
        replace(
            checkpoint,
            relations=tuple(prepared.relations),
            relation_vectors=encoder.relation_vectors,
            calibration=calibration.model_copy(update={"relation_types": scalings}),
        ),
        encoder,
    )


def _opened(folder: Path, checkpoint: Checkpoint) -> Prepared | None:
    """Open a training folder if it still has the contents that the checkpoint was trained on."""
    try:
        data = Prepared.open(folder)
    except ArtifactError:
        return None
    return None if is_out_of_domain(checkpoint, data) else data

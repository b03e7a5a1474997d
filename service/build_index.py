"""`rcml index build`: open the network, which needs torch, and let `indexes`, which knows none, do the work."""

from indexes.builder import build as builder
from indexes.config import BuildConfig
from model.checkpoint.checkpoint import Checkpoint
from model.data.prepared_data import Prepared
from service.engine.engine import OpenEncoder, open_encoder


def build(config: BuildConfig, open_encoder: OpenEncoder = open_encoder) -> str:
    """Write the index; returns a one-line summary.

    Raises:
        ArtifactError: a parent is missing or damaged, or `config.out` holds something else.
        InputError: the device or the engine of the towers asked for is not there, or no kind of index is as
            exact or as small as asked.
    """
    from model.training.distributed import join_process_group

    checkpoint, prepared = Checkpoint.open(config.checkpoint), Prepared.open(config.prepared)
    with join_process_group(config.device) as ranks:
        encoder = open_encoder(config.checkpoint, config.device, config.precision, config.engine)
        counts = builder.build(config, encoder, checkpoint, prepared, ranks)
        if not ranks.first:
            return f"Rank {ranks.rank} has encoded its share."
    aside = counts["set_aside"]
    return (
        f"Indexed {counts['items']} items under {counts['relations']} relations ({encoder.device}): {config.out}"
        f"{f' ({aside} items set aside; see set-aside.json)' if aside else ''}"
    )

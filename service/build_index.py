"""`rcml index build`: opens the network, which needs torch, and passes it to `indexes`, which does not import torch."""

from indexes.builder import build as builder
from indexes.config import BuildConfig
from model.checkpoint.checkpoint import Checkpoint
from model.data.prepared_data import Prepared
from service.engine.open_encoder import OpenLocalEncoder, open_encoder


def build(config: BuildConfig, open_encoder: OpenLocalEncoder = open_encoder) -> str:
    """Build the index and return a one-line summary.

    Raises:
        ArtifactError: a parent artifact is missing or damaged, or `config.out` contains files that are not an index.
        InputError: the requested device or tower runtime is not available, or no kind of index meets the requested
            recall and memory limit.
    """
    from model.training.distributed import join_process_group

    checkpoint, prepared = Checkpoint.open(config.checkpoint), Prepared.open(config.prepared)
    with join_process_group(config.device) as ranks:
        encoder = open_encoder(config.checkpoint, config.device, config.precision, config.engine)
        counts = builder.build(config, encoder, checkpoint, prepared, ranks)
        if not ranks.first:
            return f"Rank {ranks.rank} has encoded its share of the items."
    aside = counts["set_aside"]
    return (
        f"Indexed {counts['items']} items for {counts['relations']} relations ({encoder.device}, towers in "
        f"{encoder.towers}): {config.out}"
        f"{f' ({aside} items skipped; see set-aside.json)' if aside else ''}"
    )

"""Results of the tested network and its rivals: each checkpoint encodes the items once and answers all questions."""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.tower_digest import tower_digest
from model.config import EvaluateConfig
from model.console import progress
from model.data.prepared_data import Prepared
from model.embeddings.attention_entropy import AttentionEntropy
from model.embeddings.encoding import Encoding
from model.encoder.encoder import Encoder
from model.encoder.out_of_domain import under_relations_of
from model.network.image_cache import PictureFiles
from model.similarity import Similarity

from .efficiency import Costs, Subject
from .evaluation_set import EvaluationSet
from .figures import Role
from .measurement import Measurement
from .network_figures import Answers
from .report.examples import Examples
from .scoring import NetworkScorer


@dataclass(frozen=True)
class NetworkResults:
    """Results of one checkpoint: only the first tested one has examples, and only tested ones have an entropy.

    The entropy is None, too, if the attention does not depend on the relation.
    """

    answers: Answers
    measurement: Measurement
    examples: Examples | None
    entropy: AttentionEntropy | None


def measure_networks(
    checkpoints: Mapping[Role, Sequence[Checkpoint]],
    questions: EvaluationSet,
    prepared: Prepared,
    config: EvaluateConfig,
    costs: Costs | None,
    scratch: Path,
) -> dict[Role, list[NetworkResults]]:
    """Measure all checkpoints; those with the same towers share tokens in `scratch`, which is removed at the end."""
    everyone = [(role, checkpoint) for role, several in checkpoints.items() for checkpoint in several]
    towers = shared_towers([checkpoint for _, checkpoint in everyone])
    found: dict[Role, list[NetworkResults]] = {role: [] for role in checkpoints}
    for place, (role, checkpoint) in enumerate(progress(everyone, "measuring networks", len(everyone))):
        digest = towers.get(checkpoint.path)
        tokens = None if digest is None else scratch / digest
        encoder = Encoder.from_pretrained(checkpoint.path, config.device)
        checkpoint, encoder = under_relations_of(prepared, checkpoint, encoder)
        encoding, training = encode_questions(encoder, questions, tokens)
        if costs is not None:
            costs.measure(role, Subject.of_network(encoder, checkpoint.metrics.parameters), encoding)
        scorer = NetworkScorer(encoding, Similarity.AVG, training)
        conditioned = checkpoint.metrics.objective == "rcml"
        tested = role == everyone[0][0]
        found[role].append(
            NetworkResults(
                Answers.of(checkpoint, encoding, questions),
                Measurement.of(scorer, questions),
                Examples.of(scorer, questions, prepared, config.seed, encoder if conditioned else None)
                if place == 0
                else None,
                attention_entropy(encoder, questions) if conditioned and tested else None,
            )
        )
        later = {towers.get(other.path) for _, other in everyone[place + 1 :]}
        if tokens is not None and digest not in later:
            shutil.rmtree(tokens)
    shutil.rmtree(scratch, ignore_errors=True)
    return found


def encode_questions(
    encoder: Encoder, questions: EvaluationSet, tokens: Path | None
) -> tuple[Encoding, Encoding | None]:
    """Encode the test items, and the training items if there are any, with the shared tokens in `tokens`."""
    new = encoder.encode_part(
        questions.texts, questions.pictures, None if tokens is None else tokens / "test"
    )
    if not questions.training_texts:
        return new, None
    return new, encoder.encode_part(
        questions.training_texts,
        questions.training_pictures,
        None if tokens is None else tokens / "training",
    )


def attention_entropy(encoder: Encoder, questions: EvaluationSet) -> AttentionEntropy:
    """Measure how uniform the attention of a network over some of the test items is."""
    preprocessor = encoder.preprocessor
    return encoder.attention_entropy(
        preprocessor.tokenize(questions.texts), PictureFiles(preprocessor, questions.pictures)
    )


def shared_towers(checkpoints: Sequence[Checkpoint]) -> dict[Path, str]:
    """Return the digest of the towers of each checkpoint whose towers another checkpoint has too, by its path.

    Checkpoints trained with `--tune frozen` on the same backbone have the same towers.
    """
    if len(checkpoints) == 1:
        return {}
    digests = {checkpoint.path: tower_digest(checkpoint) for checkpoint in checkpoints}
    counts = Counter(digests.values())
    return {path: digest for path, digest in digests.items() if counts[digest] > 1}

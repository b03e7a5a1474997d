"""Tests of gradients: they equal plain backpropagation over the whole batch, however the batch is split."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Protocol, runtime_checkable

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.config import Conditioning, Objective, TrainConfig
from model.data.edge_table import EdgeTable
from model.data.prepared_data import Prepared
from model.encoder.read_relation import relation_context
from model.network.image_cache import load_pictures
from model.network.load_backbone import small_backbone
from model.network.network import Network, NetworkConfig
from model.network.processor import Preprocessor
from model.records import Split
from model.training.augmentation import move_pictures
from model.training.batches import Batches, Part
from model.training.distributed import ProcessGroup, join_process_group
from model.training.loss import rcml_loss
from model.training.objectives.choice import make_loss
from model.training.steps import gradient_buckets
from model.training.steps.gradients import Gradients
from tests.model.planted import TINY

ALONE = ProcessGroup(0, 1, torch.device("cpu"))


def training_part(prepared: Prepared, preprocessor: Preprocessor) -> Part:
    """Return the items and edges of the training split."""
    items = [prepared.items[row] for row in prepared.rows(Split.TRAIN)]
    return Part(
        text=preprocessor.tokenize([item.text for item in items]),
        pictures=load_pictures(preprocessor, [prepared.path / item.picture for item in items]),
        edges=EdgeTable.of(
            [edge for edge in prepared.edges if edge.split == Split.TRAIN],
            {item.item_id: row for row, item in enumerate(items)},
            {relation.relation_id: row for row, relation in enumerate(prepared.relations)},
        ),
    )


def set_up(
    folder: Path,
    group: ProcessGroup = ALONE,
    micro_batch: int | None = None,
    conditioning: Conditioning = "paper",
    objective: Objective = "rcml",
    normalise_tokens: bool = False,
    bf16: bool = False,
) -> tuple[Network, Batches, Gradients]:
    """Return a random network in float64, the batches of the training split, and the object that computes gradients."""
    prepared = Prepared.open(folder)
    items = [prepared.items[row] for row in prepared.rows(Split.TRAIN)]
    preprocessor = Preprocessor.train([item.text for item in items], TINY)
    torch.manual_seed(8)
    backbone = small_backbone(TINY, preprocessor)
    config = NetworkConfig(
        objective=objective,
        beta=0.6,
        summary_scale=1.0,
        conditioning=conditioning,
        normalise_tokens=normalise_tokens,
        backbone=backbone.config,
    )
    network = Network(config, backbone).double()
    network.attention.scale(3.0)
    if network.attention.bias is not None:  # the matrix starts at zero, which would hide faults
        torch.nn.init.normal_(network.attention.bias.matrix)
    part = training_part(prepared, preprocessor)
    training = TrainConfig(prepared=folder, out=folder, objective=objective)
    loss = make_loss(training, len(part), backbone.dim).double()
    network.register_module("loss", loss)  # only to find its gradients among those of the network
    gradients = Gradients(
        network, preprocessor, prepared.relations, group, loss, micro_batch, bf16=bf16, seed=0
    )
    batches = Batches(part, objective, 12, augment=True, seed=0, group=group, views=loss.views)
    return network, batches, gradients


def gradients_of(network: Network) -> dict[str, Tensor]:
    return {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}


def second_step(network: Network, batches: Batches, gradients: Gradients) -> tuple[float, dict[str, Tensor]]:
    """Return the loss and gradients of the second step; DeCLIP's queue then holds the texts of the first."""
    gradients.of(batches.at(1), step=1)
    network.zero_grad()
    return gradients.of(batches.at(2), step=2).item(), gradients_of(network)


@runtime_checkable
class Dropping(Protocol):
    dropout: float


def drop_half(network: Network) -> None:
    for module in network.modules():
        if isinstance(module, Dropping) and isinstance(module.dropout, float):
            module.dropout = 0.5


def compare(found: dict[str, Tensor], expected: dict[str, Tensor]) -> tuple[float, float]:
    """Return the ratio of the norms of two gradients over all weights, and their cosine."""
    assert found.keys() == expected.keys()
    x, y = (torch.cat([one[name].flatten() for name in sorted(one)]) for one in (found, expected))
    return (x.norm() / y.norm()).item(), torch.cosine_similarity(x, y, dim=0).item()


@pytest.fixture(scope="module")
def whole(prepared: Path) -> tuple[float, dict[str, Tensor]]:
    network, batches, gradients = set_up(prepared)
    return gradients.of(batches.at(1), step=1).item(), gradients_of(network)


def test_gradients_equal_plain_backpropagation(
    prepared: Path, whole: tuple[float, dict[str, Tensor]]
) -> None:
    network, batches, gradients = set_up(prepared)
    batch = batches.at(1)
    relations = [Prepared.open(prepared).relations[row] for row in batch.relations]
    preprocessor = gradients.preprocessor
    context = relation_context(network, preprocessor, relations, ALONE.device)
    pictures = move_pictures(preprocessor.normalise(batch.pictures), batch.moves)  # type: ignore[arg-type]
    vectors = network.text_vectors(batch.text, context), network.image_vectors(pictures, context)
    loss = rcml_loss(*vectors, batch.pairs, 0.1, 0.5)
    loss.backward()
    assert whole[0] == pytest.approx(loss.item(), rel=1e-12)
    assert compare(whole[1], gradients_of(network)) == pytest.approx((1.0, 1.0), abs=1e-12)


@pytest.mark.parametrize(
    ("conditioning", "normalise"), [("centred", False), ("centred+bias", False), ("centred+bias", True)]
)
def test_centred_gradients_equal_plain_backpropagation_through_centre(
    conditioning: Conditioning, normalise: bool, prepared: Path
) -> None:
    network, batches, gradients = set_up(
        prepared, micro_batch=5, conditioning=conditioning, normalise_tokens=normalise
    )
    batch = batches.at(1)
    found = gradients.of(batch, step=1).item(), gradients_of(network)
    network, _, gradients = set_up(prepared, conditioning=conditioning, normalise_tokens=normalise)
    relations, preprocessor = Prepared.open(prepared).relations, gradients.preprocessor
    # The centre is the mean over all relations, not only over those of the batch.
    context = relation_context(network, preprocessor, relations, ALONE.device)
    pictures = move_pictures(preprocessor.normalise(batch.pictures), batch.moves)  # type: ignore[arg-type]
    rows = torch.from_numpy(batch.relations)
    vectors = (
        network.text_vectors(batch.text, context)[:, rows],
        network.image_vectors(pictures, context)[:, rows],
    )
    loss = rcml_loss(*vectors, batch.pairs, 0.1, 0.5)
    loss.backward()
    assert found[0] == pytest.approx(loss.item(), rel=1e-12)
    assert compare(found[1], gradients_of(network)) == pytest.approx((1.0, 1.0), abs=1e-12)


@pytest.mark.parametrize("size", [1, 5, 7, 100])
def test_micro_batches_of_any_size_give_gradients_of_whole_batch(
    size: int, prepared: Path, whole: tuple[float, dict[str, Tensor]]
) -> None:
    network, batches, gradients = set_up(prepared, micro_batch=size)
    assert gradients.of(batches.at(1), step=1).item() == pytest.approx(whole[0], rel=1e-12)
    assert compare(gradients_of(network), whole[1]) == pytest.approx((1.0, 1.0), abs=1e-12)


def test_step_of_several_ranks_is_not_repeatable_once_they_exchange_vectors(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, batches, gradients = set_up(prepared, ProcessGroup(0, 2, ALONE.device))

    def fail(*_: object) -> None:
        raise RuntimeError("connection lost")

    def exchange() -> bool:
        with pytest.raises(RuntimeError, match="connection lost"):
            gradients.of(batches.at(1), step=1)
        return gradients.repeatable

    monkeypatch.setattr(ProcessGroup, "gather", fail)
    assert not exchange()
    monkeypatch.setattr(Network, "text_vectors", fail)
    assert exchange()


def test_dropout_is_same_when_chunk_is_encoded_again(prepared: Path) -> None:
    network, batches, gradients = set_up(prepared, micro_batch=5)
    drop_half(network)
    encoded = []
    original = network.text_vectors

    def remember(*arguments: object) -> Tensor:
        vectors = original(*arguments)  # type: ignore[arg-type]
        encoded.append(vectors.detach().clone())
        return vectors

    network.text_vectors = remember  # type: ignore[method-assign,assignment]
    gradients.of(batches.at(1), step=1)
    first, second = encoded[: len(encoded) // 2], encoded[len(encoded) // 2 :]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    gradients.of(batches.at(1), step=2)
    assert not torch.equal(encoded[2 * len(first)], first[0])


def test_dropout_depends_only_on_seed_and_step(prepared: Path) -> None:
    found = []
    for before in (
        1,
        2,
    ):  # seeds of the global generator, whose state differs between ranks and after a restart
        network, batches, gradients = set_up(prepared)
        drop_half(network)
        torch.manual_seed(before)
        gradients.of(batches.at(1), step=1)
        found.append(gradients_of(network))
    assert [name for name, one in found[0].items() if not torch.equal(one, found[1][name])] == []


RIVALS: tuple[Objective, ...] = ("siglip", "unicl", "declip")


@pytest.fixture(scope="module")
def whole_of_rivals(prepared: Path) -> dict[Objective, tuple[float, dict[str, Tensor]]]:
    return {objective: second_step(*set_up(prepared, objective=objective)) for objective in RIVALS}


@pytest.mark.parametrize("objective", RIVALS)
def test_micro_batches_of_rivals_give_gradients_of_whole_batch(
    objective: Objective, prepared: Path, whole_of_rivals: dict[Objective, tuple[float, dict[str, Tensor]]]
) -> None:
    loss, gradients = second_step(*set_up(prepared, micro_batch=5, objective=objective))
    expected = whole_of_rivals[objective]
    assert loss == pytest.approx(expected[0], rel=1e-12)
    assert compare(gradients, expected[1]) == pytest.approx((1.0, 1.0), abs=1e-12)
    learnt = {"loss.log_temperature", "loss.bias"} if objective == "siglip" else set()
    assert {name for name in gradients if name.startswith("loss.")} == learnt


MICRO_BATCHES = (None, 4)


def test_several_processes_give_gradients_of_one(
    prepared: Path,
    tmp_path: Path,
    whole: tuple[float, dict[str, Tensor]],
    whole_of_rivals: dict[Objective, tuple[float, dict[str, Tensor]]],
) -> None:
    processes = 3
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"),
            *("-m", __name__, str(prepared), str(tmp_path)),
        ],
        cwd=Path(__file__).parents[4],
        check=True,
        capture_output=True,
    )
    for micro_batch in MICRO_BATCHES:
        for rank in range(processes):
            loss = json.loads((tmp_path / f"{micro_batch}-{rank}.json").read_text())
            assert loss == pytest.approx(whole[0], rel=1e-12)
            ratio, cosine = compare(load_file(tmp_path / f"{micro_batch}-{rank}.safetensors"), whole[1])
            assert (ratio, cosine) == pytest.approx((1.0, 1.0), abs=1e-10)
    for objective, expected in whole_of_rivals.items():
        for rank in range(processes):
            loss = json.loads((tmp_path / f"{objective}-{rank}.json").read_text())
            assert loss == pytest.approx(expected[0], rel=1e-12)
            found = load_file(tmp_path / f"{objective}-{rank}.safetensors")
            assert compare(found, expected[1]) == pytest.approx((1.0, 1.0), abs=1e-10)


def one_rank(folder: Path, out: Path) -> None:
    """Save the loss and the gradients of one rank; each process of the test above calls this function."""
    torch.set_num_threads(1)
    with join_process_group("cpu") as ranks:
        for micro_batch in MICRO_BATCHES:
            network, batches, gradients = set_up(folder, ranks, micro_batch)
            loss = gradients.of(batches.at(1), step=1).item()
            save_file(gradients_of(network), out / f"{micro_batch}-{ranks.rank}.safetensors")
            (out / f"{micro_batch}-{ranks.rank}.json").write_text(json.dumps(loss))
        gradient_buckets.BUCKET_BYTES = 4096  # several buckets per backward pass
        for objective in RIVALS:
            loss, found = second_step(*set_up(folder, ranks, micro_batch=4, objective=objective))
            save_file(found, out / f"{objective}-{ranks.rank}.safetensors")
            (out / f"{objective}-{ranks.rank}.json").write_text(json.dumps(loss))


if __name__ == "__main__":
    one_rank(Path(sys.argv[1]), Path(sys.argv[2]))

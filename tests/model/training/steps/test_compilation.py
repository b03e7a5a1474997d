"""Tests of compilation: the same gradients as without it, in few graphs, and training goes on if it fails."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._functorch._aot_autograd.utils import make_boxed_func

from model.errors import InputError
from model.network.backbones import BACKBONES
from model.network.inputs import PictureInput, TextInput
from model.network.load_backbone import build_backbone
from model.network.network import Network, NetworkConfig
from model.records import INTRA_RELATION, Relation
from model.training.steps.compilation import Compilation, compiles
from tests.model.training.steps.test_gradients import compare, gradients_of, set_up

TOWER = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 3}
TEXT, VISION = {**TOWER, "vocab_size": 99}, {**TOWER, "image_size": 32, "patch_size": 16}
CONFIGS: dict[str, dict[str, Any]] = {
    "clip": {"model_type": "clip", "projection_dim": 16, "text_config": TEXT, "vision_config": VISION},
    "siglip": {"model_type": "siglip", "text_config": TEXT, "vision_config": VISION},
    "vision-text-dual-encoder": {
        "model_type": "vision-text-dual-encoder",
        "projection_dim": 16,
        "text_config": {**TEXT, "model_type": "bert"},
        "vision_config": {**VISION, "model_type": "vit"},
    },
}


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Counting:
    """Backend that runs each graph as it is, and counts the graphs."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        self.graphs += 1
        return graph.forward


def failing(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
    raise RuntimeError("no compiler here\nand a long trace")


def failing_backward(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
    raise RuntimeError("no compiler of the backward pass")


def network_of(family: str) -> Network:
    torch.manual_seed(3)
    config = NetworkConfig(
        objective="rcml", beta=0.6, summary_scale=1.0, conditioning="centred+bias", backbone=CONFIGS[family]
    )
    return Network(config, build_backbone(config.backbone)).eval()  # without dropout


def vectors(network: Network, items: int, tokens: int) -> Tensor:
    """Return the vectors of `items` random items with texts of `tokens` tokens, under three relations."""
    generator = torch.Generator().manual_seed(items * 100 + tokens)

    def texts(count: int, length: int) -> TextInput:
        ids = torch.randint(3, 90, (count, length), generator=generator)
        mask = torch.arange(length) < torch.randint(2, length + 1, (count, 1), generator=generator)
        return TextInput(ids, mask, torch.zeros_like(ids))

    relations = (INTRA_RELATION, Relation("a", "A."), Relation("b", "B."))
    context = network.context(texts(3, 16), relations)
    pixels = torch.randn(items, 3, 32, 32, generator=generator)
    pictures = PictureInput(pixels, torch.zeros(items, 2, dtype=torch.int32))
    return torch.stack(
        [network.text_vectors(texts(items, tokens), context), network.image_vectors(pictures, context)]
    )


@pytest.mark.parametrize("family", [family for family in BACKBONES if family in CONFIGS])
def test_gradients_are_same_with_one_graph_per_module_and_no_graph_breaks(family: str) -> None:
    sizes = [(5, 8), (9, 24), (3, 16)]
    counting = Counting()
    network = network_of(family)
    compilation = Compilation(network, wanted=True, backend=counting)
    for items, tokens in sizes:
        tokens = 64 if family == "siglip" else tokens  # its towers read texts of a fixed length
        found = []
        for run in (compilation.run, lambda compute: compute()):
            network.zero_grad()
            own = run(lambda: vectors(network, items, tokens))  # noqa: B023 (called at once)
            (own * torch.arange(own.numel()).view_as(own).sin()).sum().backward()
            found.append((own, gradients_of(network)))
        (own, gradients), (expected, others) = found
        torch.testing.assert_close(own, expected)
        assert compare(gradients, others) == pytest.approx((1.0, 1.0), abs=1e-5)
    # Text tower, image tower, and attention over texts and over pictures: one graph each, whatever the sizes, with one
    # more for a mask of another layout. Graph breaks would multiply them.
    assert 3 <= counting.graphs <= 5
    assert compilation.active


def test_names_and_version_of_weights_stay_and_modules_are_restored() -> None:
    network = network_of("clip")
    names, version = list(network.state_dict()), network.version
    counting = Counting()
    compilation = Compilation(network, wanted=True, backend=counting)
    compilation.run(lambda: vectors(network, 4, 8))
    assert (list(network.state_dict()), network.version) == (names, version)
    graphs = counting.graphs
    vectors(network.half().float(), 1, 8)  # would need graphs for a batch of one
    assert counting.graphs == graphs > 0


def test_failure_is_reported_once_in_one_line_and_result_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    network = network_of("clip")
    expected = vectors(network, 4, 8)
    compilation = Compilation(network, wanted=True, backend=failing)
    for _ in range(2):
        torch.testing.assert_close(compilation.run(lambda: vectors(network, 4, 8)), expected, rtol=0, atol=0)
    (line,) = capsys.readouterr().err.splitlines()
    assert "torch.compile failed" in line
    assert "no compiler here" in line
    assert not compilation.active


def test_error_that_compilation_did_not_cause_is_raised() -> None:
    compilation = Compilation(network_of("clip"), wanted=True, backend=Counting())

    def compute() -> None:
        raise ValueError("the batch is wrong")

    with pytest.raises(ValueError, match="the batch is wrong"):
        compilation.run(compute)


def test_error_after_processes_have_exchanged_vectors_is_one_line_with_a_remedy() -> None:
    network = network_of("clip")
    compilation = Compilation(network, wanted=True, backend=failing)
    with pytest.raises(InputError, match=r"no compiler here.*Start again with --compile off"):
        compilation.run(lambda: vectors(network, 4, 8), repeatable=lambda: False)


def test_queue_of_declip_has_each_batch_once_if_backward_pass_cannot_be_compiled(prepared: Path) -> None:
    backend = aot_autograd(
        fw_compiler=lambda graph, _: make_boxed_func(graph.forward), bw_compiler=failing_backward
    )
    losses = []
    for wanted in (True, False):
        network, batches, gradients = set_up(prepared, objective="declip")
        compilation = Compilation(network, wanted, backend)
        loss = compilation.run(lambda: gradients.of(batches.at(1), step=1))  # noqa: B023 (called at once)
        losses.append(loss.item())
        assert not compilation.active
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_gradients_of_batch_are_same_with_micro_batches(prepared: Path) -> None:
    found = []
    for wanted in (True, False):
        network, batches, gradients = set_up(prepared, micro_batch=5)
        compilation = Compilation(network, wanted, backend="aot_eager")
        loss = compilation.run(lambda: gradients.of(batches.at(1), step=1))  # noqa: B023 (called at once)
        assert compilation.active == wanted
        found.append((loss.item(), gradients_of(network)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    assert compare(found[0][1], found[1][1]) == pytest.approx((1.0, 1.0), abs=1e-10)


def test_compiles_long_runs_on_cuda_unless_told_otherwise() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [compiles("auto", cpu, 5_000), compiles("auto", cuda, 5_000)] == [False, True]
    assert [compiles("auto", cuda, 999), compiles("auto", cuda, 1_000)] == [False, True]
    assert [compiles("on", cpu, 1), compiles("off", cuda, 5_000)] == [True, False]

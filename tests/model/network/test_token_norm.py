"""Tests of token normalisation: every field of a text counts equally, and the mean token is subtracted."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray

from model.network.inputs import Tokens
from model.network.load_backbone import small_backbone
from model.network.network import Network, NetworkConfig
from model.network.processor import Preprocessor
from model.network.token_norm import TokenNorm
from model.records import FIELD_END
from tests.model.planted import TINY

WIDTH = 5


def norm_with(centre: ndarray) -> TokenNorm:
    norm = TokenNorm(WIDTH).double()
    norm.centre.copy_(torch.from_numpy(centre))
    return norm


def random_tokens(rng: np.random.Generator, counts: list[int], leading: int) -> Tokens:
    longest = max(counts) + leading
    mask = np.arange(longest) < np.array(counts)[:, None] + leading
    return Tokens(
        torch.from_numpy(rng.normal(2.0, 1.0, (len(counts), longest, WIDTH))),
        torch.from_numpy(mask),
        torch.zeros(len(counts), dtype=torch.long),
    )


@given(
    seed=st.integers(0, 2**32 - 1),
    items=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(any), min_size=1, max_size=4),
    leading=st.integers(0, 1),
)
def test_even_pooling_gives_the_mean_of_one_unit_vector_for_each_field(
    seed: int, items: list[list[int]], leading: int
) -> None:
    rng = np.random.default_rng(seed)
    tokens = random_tokens(rng, [sum(lengths) for lengths in items], leading)
    fields = torch.zeros(tokens.mask.shape[0], tokens.mask.shape[1] - leading, dtype=torch.long)
    centre, expected = rng.normal(size=WIDTH), []
    for row, lengths in enumerate(items):
        place, units = 0, []
        for field, length in enumerate(lengths):
            fields[row, place : place + length] = field
            own = tokens.states[row, leading + place : leading + place + length].numpy()
            if length:
                mean = own.mean(axis=0) - centre
                units.append(mean / np.linalg.norm(mean))
            place += length
        expected.append(np.mean(units, axis=0))
    found = norm_with(centre)(tokens, fields)
    for row, lengths in enumerate(items):
        own = found.states[row, leading : leading + sum(lengths)]
        np.testing.assert_allclose(own.mean(dim=0).numpy(), expected[row], atol=1e-9)
        if leading:
            summary = tokens.states[row, 0].numpy() - centre
            np.testing.assert_allclose(found.states[row, 0], summary / np.linalg.norm(summary), atol=1e-9)
    assert not found.states[~tokens.mask].any()
    assert torch.equal(found.mask, tokens.mask)
    assert torch.equal(found.summary, tokens.summary)


def test_tokens_of_one_field_keep_their_proportions() -> None:
    tokens = random_tokens(np.random.default_rng(0), [4], leading=0)
    centre = np.ones(WIDTH)
    found = norm_with(centre)(tokens, torch.tensor([[0, 0, 1, 1]])).states[0]
    ratio = found / (tokens.states[0] - 1)
    torch.testing.assert_close(ratio[0].expand(2, -1), ratio[:2])
    torch.testing.assert_close(ratio[2].expand(2, -1), ratio[2:])


def test_without_fields_an_item_is_one_field() -> None:
    tokens = random_tokens(np.random.default_rng(1), [3, 2], leading=0)
    norm = norm_with(np.full(WIDTH, 0.5))
    together = norm(tokens, torch.zeros(2, 3, dtype=torch.long)).states
    torch.testing.assert_close(norm(tokens).states, together)
    mean = tokens.states[1, :2].mean(dim=0) - 0.5
    torch.testing.assert_close(norm(tokens).states[1, :2].mean(dim=0), mean / mean.norm())


def test_field_whose_mean_is_the_centre_stays_finite() -> None:
    tokens = Tokens(
        torch.ones(1, 2, WIDTH), torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, dtype=torch.long)
    )
    found = norm_with(np.ones(WIDTH)).float()(tokens, torch.tensor([[0, 1]]))
    assert found.states.tolist() == [[[0.0] * WIDTH] * 2]


def test_items_that_all_have_the_same_picture_are_not_stretched_without_bound() -> None:
    states = torch.randn(1, 50, WIDTH, generator=torch.Generator().manual_seed(0))
    tokens = Tokens(states, torch.ones(1, 50, dtype=torch.bool), torch.zeros(1, dtype=torch.long))
    norm = TokenNorm(WIDTH)
    norm.centre.copy_(states[0].mean(dim=0) + 1e-7)
    assert float(norm(tokens).states.abs().max()) < 1000


def test_mean_counts_every_field_equally() -> None:
    states = torch.tensor([[[9.0], [1.0], [3.0], [6.0], [0.0]], [[9.0], [4.0], [0.0], [0.0], [0.0]]])
    mask = torch.tensor([[True, True, True, True, False], [True, True, False, False, False]])
    norm = TokenNorm(1)
    fields = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]])  # the first token is a summary without a field
    found = norm.means(Tokens(states, mask, torch.zeros(2, dtype=torch.long)), fields)
    assert found.tolist() == [[(2 + 6) / 2], [4.0]]


def test_towers_read_the_same_tokens_whether_fields_are_separated_or_not(preprocessor: Preprocessor) -> None:
    lines = FIELD_END.join(("red mug", "kitchen, mugs", "holds tea. green."))
    text = preprocessor.tokenize([lines, "red mug"])
    assert text.ids[0].tolist() == preprocessor.tokenize([lines.replace("\n", " ")]).ids[0].tolist()
    words = [
        (preprocessor.tokenizer.decode([token]).strip(), int(field))
        for token, field, real in zip(text.ids[0], text.fields[0], text.mask[0], strict=True)
        if real
    ]
    firsts = [next(place for place, (_, field) in enumerate(words) if field == number) for number in range(3)]
    joined = ["".join(word for word, field in words if field == number) for number in range(3)]
    assert joined[0].endswith("redmug.")
    assert joined[1] == "kitchen,mugs."
    assert joined[2].startswith("holdstea.green.")
    assert firsts == sorted(firsts)
    assert text.fields[1].tolist() == [0] * text.fields.shape[1]


def test_field_that_was_cut_off_has_no_tokens(preprocessor: Preprocessor) -> None:
    text = preprocessor.tokenize(["red " * 100 + FIELD_END + "mug"])
    assert text.fields.max() == 0


@pytest.mark.parametrize("blank", ["\u200b", " ", "\n", "\xad"])
def test_field_begins_with_its_first_character_that_has_a_token(
    blank: str, preprocessor: Preprocessor
) -> None:
    plain = preprocessor.tokenize([f"red mug{FIELD_END}kitchen"])
    found = preprocessor.tokenize([f"red mug{FIELD_END}{blank}kitchen"])
    assert int(found.fields.max()) == 1
    assert found.fields[0, :3].tolist() == plain.fields[0, :3].tolist()


def test_line_break_within_a_text_starts_no_field(preprocessor: Preprocessor) -> None:
    assert preprocessor.tokenize(["red mug\nkitchen"]).fields.max() == 0


@pytest.mark.parametrize("normalise", [False, True])
def test_network_normalises_tokens_of_both_modalities_only_if_asked(
    normalise: bool, preprocessor: Preprocessor
) -> None:
    torch.manual_seed(0)
    backbone = small_backbone(TINY, preprocessor).eval()
    config = NetworkConfig(
        objective="rcml", beta=0.6, summary_scale=1.0, normalise_tokens=normalise, backbone=backbone.config
    )
    network = Network(config, backbone).eval()
    text = preprocessor.tokenize([f"red mug{FIELD_END}kitchen"])
    pictures = preprocessor.normalise(preprocessor.blank(1))
    plain = (backbone.text_tokens(text).states, backbone.image_tokens(pictures).states)
    found = (network.text_tokens(text).states, network.image_tokens(pictures).states)
    assert [torch.equal(one, other) for one, other in zip(plain, found, strict=True)] == [not normalise] * 2
    if normalise:
        torch.testing.assert_close(found[1][0].mean(dim=0).norm(), torch.tensor(1.0))
        firsts = plain[0][0][text.fields[0] == 0].mean(dim=0)
        torch.testing.assert_close(
            found[0][0][text.fields[0] == 0].sum(dim=0) * 2 / len(text.fields[0]), firsts / firsts.norm()
        )

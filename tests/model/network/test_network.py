"""Tests of the relation-guided attention against the formulas of the paper, and of special cases of the attention."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy import ndarray
from PIL import Image
from torch import Tensor
from transformers import CLIPConfig

from model.config import Objective
from model.encoder import encoder as encoder_module
from model.encoder.encoder import Encoder
from model.network.inputs import PictureInput, Tokens
from model.network.load_backbone import small_backbone
from model.network.network import BLIND_RELATION, Network, NetworkConfig
from model.network.processor import Preprocessor
from model.network.relation_attention import ONE_HOT_SCALE, RelationAttention, RelationView
from model.records import INTRA_RELATION, Relation
from tests.model.planted import TINY

DIM = 6
RELATIONS = (INTRA_RELATION, Relation("colour", "One colour."), Relation("shape", "One shape of thing."))


def random_attention(beta: float = 0.6, summary_scale: float = 1.0) -> RelationAttention:
    attention = RelationAttention(DIM, beta, summary_scale).double()
    for matrix in attention.parameters():
        torch.nn.init.normal_(matrix)
    return attention


def random_tokens() -> Tokens:
    """Return three items of 5, 3 and 1 tokens with random padding; the last real token is the summary."""
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], dtype=torch.bool)
    return Tokens(torch.randn(3, 5, DIM, dtype=torch.float64), mask, mask.sum(dim=1) - 1)


INTRA = torch.tensor([True, False, False])
SPACE = torch.eye(DIM, dtype=torch.float64)
"""Projection for tokens that are already in the joint space."""


def random_relations() -> Tensor:
    return torch.randn(3, DIM, dtype=torch.float64)


def random_view(attention: RelationAttention) -> RelationView:
    return attention.view(random_relations(), INTRA, SPACE)


def formula(attention: RelationAttention, h: ndarray, summary: int, h_e: ndarray, intra: bool) -> ndarray:
    """Compute eq. 4-6 as printed for one relation and one item, whose tokens are the columns of `h`."""
    w_q, w_k, w_v, w_o = (
        getattr(attention, name).detach().numpy() for name in ("query", "key", "value", "output")
    )
    q = np.array([(w_q @ h_e) @ (w_k @ token) for token in h.T]) / np.sqrt(len(h))
    b = np.zeros(h.shape[1])
    b[summary] = attention.summary_scale * intra
    scores = np.exp((1 - attention.beta) * q + attention.beta * b)
    a = scores / scores.sum()
    z = a @ (w_v @ h).T @ w_o
    return np.asarray(z / np.linalg.norm(z))


@pytest.mark.parametrize(("beta", "summary_scale"), [(0.6, 1.0), (0.0, 1.0), (1.0, 1.0), (0.3, 7.5)])
def test_attention_matches_equations_4_to_6(beta: float, summary_scale: float) -> None:
    torch.manual_seed(0)
    attention, tokens = random_attention(beta, summary_scale), random_tokens()
    relations = random_relations()
    vectors = attention(tokens, attention.view(relations, INTRA, SPACE)).detach().numpy()
    for item, relation in np.ndindex(3, 3):
        h = tokens.states[item, tokens.mask[item]].numpy().T
        h_e, intra = relations[relation].numpy(), bool(INTRA[relation])
        expected = formula(attention, h, int(tokens.summary[item]), h_e, intra)
        np.testing.assert_allclose(vectors[item, relation], expected, atol=1e-12)


def test_logit_scale_multiplies_relevance() -> None:
    torch.manual_seed(7)
    plain, scaled = random_attention(), random_attention()
    scaled.load_state_dict(plain.state_dict())
    scaled.logit_scale = 3.0
    relations = random_relations()
    queries = [attention.view(relations, INTRA, SPACE).queries for attention in (plain, scaled)]
    torch.testing.assert_close(queries[1], 3 * queries[0])


def test_relevance_of_unit_tokens_depends_only_on_their_direction() -> None:
    torch.manual_seed(9)
    plain, unit = random_attention(), RelationAttention(DIM, 0.6, 1.0, unit_tokens=True).double()
    unit.load_state_dict(plain.state_dict())
    tokens, relations = random_tokens(), random_relations()
    projection = torch.randn(DIM, DIM, dtype=torch.float64)
    longer = replace(tokens, states=tokens.states * (0.1 + 9 * torch.rand(3, 5, 1, dtype=torch.float64)))
    joint = longer.states @ projection
    expected = plain.weights(
        replace(tokens, states=joint / joint.norm(dim=-1, keepdim=True)), plain.view(relations, INTRA, SPACE)
    )
    view = unit.view(relations, INTRA, projection)
    for each in (tokens, longer):
        torch.testing.assert_close(unit.weights(each, view), expected)
    pooled = expected @ joint @ unit.value.T @ unit.output
    torch.testing.assert_close(unit(longer, view), torch.nn.functional.normalize(pooled, dim=-1))


def biased_attention() -> RelationAttention:
    attention = RelationAttention(DIM, 0.6, 1.0, biased=True).double()
    for matrix in attention.parameters():
        torch.nn.init.normal_(matrix)
    return attention


def test_relation_bias_moves_vectors_along_its_direction() -> None:
    torch.manual_seed(5)
    attention, tokens, relations = biased_attention(), random_tokens(), random_relations()
    projection = torch.randn(DIM, DIM, dtype=torch.float64)
    vectors = attention(tokens, attention.view(relations, INTRA, projection)).detach().numpy()
    bias = attention.bias
    assert bias is not None
    b, u = bias.matrix.detach().numpy(), bias.direction.detach().numpy()
    for item, relation in np.ndindex(3, 3):
        h = (tokens.states[item, tokens.mask[item]] @ projection).numpy().T
        h_e, intra = relations[relation].numpy(), bool(INTRA[relation])
        expected = formula(attention, h, int(tokens.summary[item]), h_e, intra)
        if not intra:
            mean = h.mean(axis=1)
            amount = mean / np.linalg.norm(mean) @ b @ (h_e / np.linalg.norm(h_e)) + bias.offset.item()
            expected = expected + amount * u / np.linalg.norm(u)
        np.testing.assert_allclose(vectors[item, relation], expected / np.linalg.norm(expected), atol=1e-12)


def test_padding_values_do_not_change_relation_bias() -> None:
    torch.manual_seed(6)
    attention, tokens = biased_attention(), random_tokens()
    view = random_view(attention)
    other = replace(tokens, states=tokens.states.masked_fill(~tokens.mask[..., None], 1e3))
    torch.testing.assert_close(attention(tokens, view), attention(other, view), rtol=0, atol=0)


def test_relation_bias_of_some_relations_equals_their_part_of_all() -> None:
    torch.manual_seed(8)
    attention, tokens = biased_attention(), random_tokens()
    view, rows = random_view(attention), torch.tensor([2, 0])
    torch.testing.assert_close(attention(tokens, view.take(rows)), attention(tokens, view)[:, rows])


def test_padding_has_zero_weight_and_weights_sum_to_one() -> None:
    torch.manual_seed(1)
    attention, tokens = random_attention(), random_tokens()
    weights = attention.weights(tokens, random_view(attention))
    assert (weights[~tokens.mask[:, None, :].expand_as(weights)] == 0).all()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 3, dtype=torch.float64))


def test_padding_values_do_not_change_vectors() -> None:
    torch.manual_seed(2)
    attention, tokens = random_attention(), random_tokens()
    view = random_view(attention)
    other = replace(tokens, states=tokens.states.masked_fill(~tokens.mask[..., None], 1e3))
    torch.testing.assert_close(attention(tokens, view), attention(other, view), rtol=0, atol=0)


def test_summary_bonus_applies_only_to_intra_relation() -> None:
    torch.manual_seed(3)
    plain, boosted = random_attention(summary_scale=0.0), random_attention(summary_scale=5.0)
    boosted.load_state_dict(plain.state_dict())
    tokens, view = random_tokens(), random_view(plain)
    before, after = plain.weights(tokens, view), boosted.weights(tokens, view)
    torch.testing.assert_close(after[:, 1:], before[:, 1:], rtol=0, atol=0)
    # The bonus multiplies the odds of the summary token by exactly e^(0.6 * 5).
    share = [w[0, 0, tokens.summary[0]].item() for w in (before, after)]
    odds = [w / (1 - w) for w in share]
    assert odds[1] / odds[0] == pytest.approx(np.exp(3.0))


def test_new_attention_starts_with_identity_matrices() -> None:
    attention = RelationAttention(DIM, 0.6, 1.0)
    assert [torch.equal(matrix, torch.eye(DIM)) for matrix in attention.parameters()] == [True] * 4


def small_network(preprocessor: Preprocessor, objective: Objective, **options: Any) -> Network:
    torch.manual_seed(4)
    backbone = small_backbone(TINY, preprocessor)
    chosen = {"beta": 0.6, "summary_scale": 1.0, **options}
    return Network(NetworkConfig(objective=objective, backbone=backbone.config, **chosen), backbone).eval()


@torch.inference_mode()
def test_centred_relations_attend_by_deviation_from_mean_with_length_kept(preprocessor: Preprocessor) -> None:
    paper, network = (small_network(preprocessor, "rcml", conditioning=one) for one in ("paper", "centred"))
    descriptions = preprocessor.tokenize([relation.description for relation in RELATIONS])
    h, found = (one.context(descriptions, RELATIONS) for one in (paper, network))
    np.testing.assert_array_equal(found.vectors, h.vectors)
    vectors = h.vectors.double().numpy()
    apart = vectors - (vectors[1] + vectors[2]) / 2  # the mean of the two inter-sample relations
    seeking = apart / np.linalg.norm(apart, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)[:, None]
    attention = network.attention
    w_q, w_k = (matrix.double().numpy() for matrix in (attention.query, attention.key))
    for view, projection in (
        (found.text, network.backbone.text_projection()),
        (found.image, network.backbone.image_projection()),
    ):
        expected = 0.4 / np.sqrt(vectors.shape[1]) * seeking @ w_q.T @ w_k @ projection.double().numpy().T
        np.testing.assert_allclose(view.queries, expected, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_centre_of_all_relations_serves_a_single_relation(preprocessor: Preprocessor) -> None:
    network = small_network(preprocessor, "rcml", conditioning="centred")
    known = network.context(preprocessor.tokenize([one.description for one in RELATIONS]), RELATIONS)
    alone = network.context(preprocessor.tokenize([RELATIONS[2].description]), RELATIONS[2:], known.centre)
    torch.testing.assert_close(alone.text.queries, known.text.queries[2:])
    torch.testing.assert_close(known.take(torch.tensor([2])).image.queries, alone.image.queries)


@torch.inference_mode()
def test_only_inter_sample_relation_is_not_centred(preprocessor: Preprocessor) -> None:
    paper, network = (small_network(preprocessor, "rcml", conditioning=one) for one in ("paper", "centred"))
    descriptions = preprocessor.tokenize([relation.description for relation in RELATIONS[:2]])
    expected, found = (one.context(descriptions, RELATIONS[:2]) for one in (paper, network))
    torch.testing.assert_close(found.text.queries, expected.text.queries)


@torch.inference_mode()
def test_beta_one_with_one_hot_bonus_equals_clip(preprocessor: Preprocessor) -> None:
    network = small_network(preprocessor, "rcml", beta=1.0, summary_scale=ONE_HOT_SCALE)
    text = preprocessor.tokenize(["red mug", "green kite black drum white vase orange tent"])
    pixels = torch.randn(2, 3, TINY.image_size, TINY.image_size)
    pictures = PictureInput(pixels, torch.zeros(2, 2))
    context = network.context(preprocessor.tokenize([INTRA_RELATION.description]), [INTRA_RELATION])
    clip = network.backbone.model
    texts = clip.get_text_features(text.ids, attention_mask=text.mask).pooler_output
    images = clip.get_image_features(pixels).pooler_output
    for ours, theirs in (
        (network.text_vectors(text, context)[:, 0], texts),
        (network.image_vectors(pictures, context)[:, 0], images),
    ):
        torch.testing.assert_close(ours, torch.nn.functional.normalize(theirs), rtol=0, atol=1e-5)


def test_vit_b_32_network_has_parameter_count_of_paper() -> None:
    config = NetworkConfig(
        objective="rcml", beta=0.6, summary_scale=1.0, backbone=CLIPConfig().to_diff_dict()
    )
    with torch.device("meta"):
        network = Network.from_config(config)
    assert sum(parameter.numel() for parameter in network.parameters()) == 152_325_889


@pytest.mark.parametrize(
    ("objective", "seen"),
    [
        ("rcml", RELATIONS),
        ("blind", (INTRA_RELATION, BLIND_RELATION, BLIND_RELATION)),
        *(
            (one, (INTRA_RELATION, INTRA_RELATION, INTRA_RELATION))
            for one in ("clip", "siglip", "unicl", "declip")
        ),
    ],
)
def test_objective_determines_conditioning_relation(
    objective: Objective, seen: tuple[Relation, ...], preprocessor: Preprocessor
) -> None:
    network = small_network(preprocessor, objective)
    assert tuple(network.conditioning_relation(relation) for relation in RELATIONS) == seen


def vectors_of(network: Network, preprocessor: Preprocessor) -> ndarray:
    encoder = Encoder(network, preprocessor, RELATIONS, torch.device("cpu"))
    return np.asarray(encoder.encode_texts(["red mug"])[0])


@pytest.mark.parametrize("objective", ["blind", "clip", "siglip", "unicl", "declip"])
def test_objectives_other_than_rcml_give_one_vector_for_all_inter_sample_relations(
    objective: Objective, preprocessor: Preprocessor
) -> None:
    vectors = vectors_of(small_network(preprocessor, objective), preprocessor)
    np.testing.assert_allclose(vectors[1], vectors[2], rtol=0, atol=1e-7)


def test_rcml_gives_different_vectors_for_different_relations(preprocessor: Preprocessor) -> None:
    vectors = vectors_of(small_network(preprocessor, "rcml"), preprocessor)
    assert np.linalg.norm(vectors[1] - vectors[2]) > 1e-3


def test_vectors_do_not_depend_on_rest_of_batch(
    preprocessor: Preprocessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_module, "BATCH_ITEMS", 2)
    network = small_network(preprocessor, "rcml")
    encoder = Encoder(network, preprocessor, RELATIONS, torch.device("cpu"))
    texts = ["a tall blue vase on a table in the sun", "hat", "red mug", "", "one green kite"]
    pictures = [Image.new("RGB", (40, 30), (50 * n, 0, 99)) for n in range(5)]
    together = encoder.encode_items(texts, pictures)
    alone = [encoder.encode_items([text], [picture]) for text, picture in zip(texts, pictures, strict=True)]
    np.testing.assert_allclose(together.text, np.concatenate([one.text for one in alone]), atol=1e-6)
    np.testing.assert_allclose(together.image, np.concatenate([one.image for one in alone]), atol=1e-6)

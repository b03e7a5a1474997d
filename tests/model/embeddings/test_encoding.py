"""Token rows, encodings, and free-text relations compared with eq. 4-6 computed item by item."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.embeddings.encoding import Encoding, ItemTokens, TokenRows
from model.embeddings.free_text import FreeTextBias, FreeTextRelation


@given(lengths=st.lists(st.integers(0, 6), max_size=6), dim=st.integers(1, 5), seed=st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_free_text_vectors_match_equations(lengths: list[int], dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((sum(lengths), dim)).astype(np.float32)
    starts = np.cumsum([0, *lengths])
    query, output = 3 * rng.standard_normal(dim), rng.standard_normal((dim, dim))
    relation = FreeTextRelation(
        "any", query.astype(np.float32), output.astype(np.float32), (), np.zeros(dim, np.float32)
    )
    found = relation.vectors(TokenRows(states, starts))
    assert found.shape == (len(lengths), dim)
    for row, (start, stop) in enumerate(pairwise(starts)):
        if start == stop:
            np.testing.assert_array_equal(found[row], 0)
            continue
        scores = np.exp(states[start:stop] @ query)
        pooled = sum(s / scores.sum() * token for s, token in zip(scores, states[start:stop], strict=True))
        expected = pooled @ output
        np.testing.assert_allclose(found[row], expected / np.linalg.norm(expected), atol=1e-4)


def test_relevance_of_unit_tokens_depends_only_on_their_direction() -> None:
    states = np.array([[3.0, 4.0], [0.0, 0.2], [0.0, 0.0]], np.float32)
    query, unit = np.array([1.0, 2.0], np.float32), np.array([[0.6, 0.8], [0.0, 1.0], [0.0, 0.0]])
    relation = FreeTextRelation(
        "any", query, np.eye(2, dtype=np.float32), (), np.zeros(2, np.float32), unit_tokens=True
    )
    expected = np.exp(unit @ query) @ states
    found = relation.vectors(TokenRows(states, np.array([0, 3])))
    np.testing.assert_allclose(found[0], expected / np.linalg.norm(expected), atol=1e-6)


@given(lengths=st.lists(st.integers(0, 6), max_size=6), dim=st.integers(1, 5), seed=st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_free_text_bias_moves_vectors_along_its_direction(lengths: list[int], dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((sum(lengths), dim)).astype(np.float32)
    tokens = TokenRows(states, np.cumsum([0, *lengths]))
    query, output = rng.standard_normal(dim), rng.standard_normal((dim, dim))
    key, direction = rng.standard_normal((2, dim)).astype(np.float32)
    plain = FreeTextRelation(
        "any", query.astype(np.float32), output.astype(np.float32), (), np.zeros(dim, np.float32)
    )
    found = replace(plain, bias=FreeTextBias(key, 0.25, direction)).vectors(tokens)
    for row, (start, stop) in enumerate(pairwise(tokens.starts)):
        expected = np.zeros(dim)
        if stop > start:
            mean = states[start:stop].mean(axis=0, dtype=np.float64)
            amount = 0.25 + mean / np.linalg.norm(mean) @ key
            expected = plain.vectors(tokens)[row] + amount * direction
            expected /= np.linalg.norm(expected)
        np.testing.assert_allclose(found[row], expected, atol=1e-4)


def test_average_weighs_text_by_its_share() -> None:
    text, image = np.array([[[1.0, 0.0]]], np.float32), np.array([[[0.0, 1.0]]], np.float32)
    found = {share: Encoding(text, image, None, share).average[0, 0] for share in (0.5, 0.8, 1.0)}
    np.testing.assert_allclose(found[0.5], [0.5**0.5, 0.5**0.5], atol=1e-6)
    np.testing.assert_allclose(found[0.8], np.array([0.8, 0.2]) / np.hypot(0.8, 0.2), atol=1e-6)
    np.testing.assert_allclose(found[1.0], [1.0, 0.0], atol=1e-6)
    [single] = Encoding(text, image, None, 0.8).split()
    np.testing.assert_array_equal(single.average[0, 0], found[0.8])
    alone = Encoding(text, image, None, 0.8).without_text()
    np.testing.assert_allclose(alone.average[0, 0], [0.0, 1.0], atol=1e-6)


def test_joined_token_rows_contain_items_of_all_parts() -> None:
    first = TokenRows(np.arange(6.0).reshape(3, 2), np.array([0, 1, 3]))
    none = TokenRows(np.empty((0, 2)), np.array([0]))
    second = TokenRows(np.array([[8.0, 9.0]]), np.array([0, 0, 1]))
    joined = TokenRows.joined([first, none, second])
    np.testing.assert_array_equal(joined.states, [[0, 1], [2, 3], [4, 5], [8, 9]])
    assert joined.starts.tolist() == [0, 1, 3, 3, 4]
    assert len(joined) == 4


def test_without_text_keeps_only_image_vectors_and_tokens() -> None:
    draw = np.random.default_rng(0)
    text, image = draw.standard_normal((2, 2, 3, 4)).astype(np.float32)
    image /= np.linalg.norm(image, axis=-1, keepdims=True)
    states = draw.standard_normal((5, 4)).astype(np.float16)
    tokens = ItemTokens(TokenRows(states, np.array([0, 2, 5])), TokenRows(states, np.array([0, 1, 5])))
    alone = Encoding(text, image, tokens).without_text()
    assert not alone.text.any()
    np.testing.assert_allclose(alone.average, image, atol=1e-6)
    assert alone.tokens is not None
    assert (len(alone.tokens.text), len(alone.tokens.text.states)) == (2, 0)
    assert alone.tokens.image is tokens.image
    assert Encoding(text, image).without_text().tokens is None

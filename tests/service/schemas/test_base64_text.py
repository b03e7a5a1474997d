"""Tests that Base64 is decoded in slices with the result of decoding it at once."""

import binascii
from base64 import b64decode, b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.schemas import base64_text
from service.schemas.base64_text import SLICE_CHARACTERS, decode


def _at_once(text: str) -> bytes | None:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        return None


def _in_slices(text: str) -> bytes | None:
    try:
        return decode(text)
    except ValueError:
        return None


@given(content=st.binary(max_size=40))
def test_result_is_that_of_decoding_at_once(content: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base64_text, "SLICE_CHARACTERS", 8)
        assert decode(b64encode(content).decode()) == content


@given(text=st.text(alphabet="Aa9+/=- é", max_size=40))
def test_text_is_refused_if_decoding_at_once_refuses_it(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base64_text, "SLICE_CHARACTERS", 8)
        assert _in_slices(text) == _at_once(text)


@pytest.mark.parametrize(
    "text", ["QUJDRUY=QUJDREVG", "QUJDRQ==QUJDREVG", "QUJDREVGQ", "QUJDREVGQ===", "QUJDREVG=AAA"]
)
def test_padding_within_the_text_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base64_text, "SLICE_CHARACTERS", 8)
    with pytest.raises(ValueError, match=r"padding|data|characters"):
        decode(text)


def test_no_call_decodes_more_than_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []

    def recorded(text: str, strict_mode: bool) -> bytes:
        lengths.append(len(text))
        return binascii.a2b_base64(text, strict_mode=strict_mode)

    monkeypatch.setattr(base64_text, "a2b_base64", recorded)
    content = bytes(range(256)) * 2**12
    assert decode(b64encode(content).decode()) == content
    assert lengths == [SLICE_CHARACTERS] * 5 + [len(b64encode(content)) - 5 * SLICE_CHARACTERS]

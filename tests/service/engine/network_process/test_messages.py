"""Tests of the contents of frames: jobs, results and errors are received as they were sent."""

import inspect
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray
from PIL import Image

from model.embeddings.attention_map import Attention, Box, PatchWeights, TextWeights, TokenWeight
from model.embeddings.encoding import Encoding, ItemTokens, TokenRows
from model.embeddings.free_text import FreeTextBias, FreeTextRelation
from model.errors import RcmlError, UnknownRelationError
from service.engine.model_jobs import EncodeItemJob, ExplainJob, ReadRelationJob
from service.engine.network_process.frames import Frame, FrameError, Prefix, decode, encode
from service.engine.network_process.messages import CLASSES, ERRORS, pack, pack_error, unpack, unpack_error
from service.problems.errors import OverloadedError

ROWS = TokenRows(np.ones((3, 4), np.float16), np.array([0, 1, 3]))
VECTOR = np.linspace(-1, 1, 4, dtype=np.float32)
RELATION = FreeTextRelation(
    "goes with",
    VECTOR,
    np.outer(VECTOR, VECTOR),
    (2, 1),
    2 * VECTOR,
    FreeTextBias(VECTOR, 0.1, -VECTOR),
    0.3,
    True,
)
PICTURE = Image.frombytes("RGB", (5, 3), bytes(range(45)))
VALUES = [
    EncodeItemJob("a red mug\n\x1f\U0001f600", PICTURE, True),
    EncodeItemJob("", None),
    ReadRelationJob("goes with"),
    ExplainJob(None, PICTURE, "gardeners"),
    ExplainJob("mug", None, RELATION),
    Encoding(np.ones((1, 2, 4), np.float32), np.zeros((1, 2, 4), np.float32), ItemTokens(ROWS, ROWS), 0.1),
    Encoding(np.ones((1, 2, 4), np.float32), np.zeros((1, 2, 4), np.float32)),
    RELATION,
    Attention(
        TextWeights((TokenWeight("mug", 0, 3, 0.1 + 0.2),), 1e-300),
        PatchWeights(np.ones((2, 3), np.float32), 0.0, Box(-0.5, 0, 1, 1)),
    ),
    Attention(None, None),
]


def sent(value: object) -> tuple[Any, list[ndarray]]:
    """Return the JSON and the arrays of a value, after they were sent."""
    arrays: list[ndarray] = []
    raw = b"".join(encode(Frame("job", 1, pack(value, arrays), arrays)))
    start = Prefix.LAYOUT.size
    prefix = Prefix.read(raw[:start])
    frame = decode(prefix, raw[start:][: prefix.header_bytes], bytearray(raw[start + prefix.header_bytes :]))
    return frame.body, list(frame.arrays)


def assert_same(one: Any, other: Any) -> None:
    """Assert that two values are equal, bit for bit."""
    if isinstance(other, ndarray):
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    elif isinstance(other, Image.Image):
        assert (one.mode, one.size, one.tobytes()) == (other.mode, other.size, other.tobytes())
    elif is_dataclass(other):
        assert type(one) is type(other)
        for field in fields(other):
            assert_same(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(other, tuple):
        assert type(one) is tuple
        for mine, theirs in zip(one, other, strict=True):
            assert_same(mine, theirs)
    else:
        assert one == other


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_value_is_received_as_it_was_sent(value: object) -> None:
    assert_same(unpack(*sent(value)), value)


def test_values_of_all_classes_are_tested() -> None:
    assert {name for name in CLASSES if name in str([sent(value)[0] for value in VALUES])} == set(CLASSES)


@given(st.data())
def test_changed_value_is_refused_by_name_or_well_formed(data: st.DataObject) -> None:
    raw, arrays = sent(data.draw(st.sampled_from(VALUES)))
    changed = data.draw(mutated(raw))
    try:
        found = unpack(changed, arrays)
    except FrameError:
        return
    assert_same(unpack(*sent(found)), found)


@st.composite
def mutated(draw: st.DrawFn, raw: Any) -> Any:
    """Replace, remove or repeat one part of the JSON of a value, at any depth."""
    if not isinstance(raw, list) or not raw or draw(st.integers(0, 4)) == 0:
        return draw(
            st.sampled_from([None, True, -1, 2**62, 0.5, "array", [], {}, ["array", 0], ["array", 99], [[1]]])
        )
    place = draw(st.integers(0, len(raw) - 1))
    match draw(st.sampled_from(["deeper", "deeper", "deeper", "remove", "repeat"])):
        case "remove":
            return raw[:place] + raw[place + 1 :]
        case "repeat":
            return [*raw, raw[place]]
    return [*raw[:place], draw(mutated(raw[place])), *raw[place + 1 :]]


@pytest.mark.parametrize(
    "raw",
    [
        ["EncodeItemJob", 1, None, False],
        ["EncodeItemJob", "mug", None],
        ["EncodeItemJob", "mug", ["array", 0], False],
        ["ReadRelationJob", None],
        ["Path", "/etc/passwd"],
        ["picture", 10**6, 10**6, 0],
        ["picture", -5, -3, 0],
        ["picture", 0, 3, 0],
        ["array", 1],
        ["array", -1],
        [["array"], 0],
        {"array": 0},
        [],
    ],
    ids=str,
)
def test_value_that_no_process_sends_is_refused_by_name(raw: Any) -> None:
    with pytest.raises(FrameError, match=r"unknown value|wrong type|fields"):
        unpack(raw, [np.zeros(45, np.uint8)])


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_number_that_json_lacks_is_received_as_it_was_sent(value: float) -> None:
    assert str(unpack(*sent(value))) == str(value)


def test_object_of_another_class_is_not_sent() -> None:
    with pytest.raises(FrameError, match="of type Frame cannot be sent"):
        pack(Frame("job", 1), [])


def an_error(cls: type[RcmlError]) -> RcmlError:
    """Create an error of a class, with some value for every argument."""
    some: dict[str, Any] = {"known": ("a", "b"), "others": ["a"], "wait": 2.5, "fields": ["title"], "cost": 5}
    if not inspect.isfunction(cls.__init__):  # a class without a constructor of its own
        return cls("a message")
    needed = [
        name
        for name, one in inspect.signature(cls).parameters.items()
        if one.default is one.empty and one.kind is not one.VAR_POSITIONAL
    ]
    return cls(*(some.get(name, 7) for name in needed))


@pytest.mark.parametrize("name", ERRORS)
def test_error_is_received_as_it_was_raised(name: str) -> None:
    error = an_error(ERRORS[name])
    found = unpack_error(decode_json(pack_error(error)))
    assert (type(found), str(found), vars(found)) == (type(error), str(error), vars(error))
    for key, value in vars(error).items():
        assert type(vars(found)[key]) is type(value)


def decode_json(value: Any) -> Any:
    return orjson.loads(orjson.dumps(value))


def test_fields_of_received_errors_are_those_that_responses_use() -> None:
    unknown = unpack_error(decode_json(pack_error(UnknownRelationError("knitters", ("gardeners",)))))
    assert isinstance(unknown, UnknownRelationError)
    assert (unknown.relation_id, unknown.known) == ("knitters", ("gardeners",))
    overloaded = unpack_error(decode_json(pack_error(OverloadedError(6.1))))
    assert isinstance(overloaded, OverloadedError)
    assert (overloaded.retry_after, overloaded.headers) == (7, {"Retry-After": "7"})


@pytest.mark.parametrize("error", [ZeroDivisionError("by 0"), MemoryError(), FrameError(b"x")], ids=repr)
def test_any_other_error_becomes_a_runtime_error_with_its_message(error: Exception) -> None:
    found = unpack_error(decode_json(pack_error(error)))
    assert type(found) is RuntimeError
    assert str(found) == f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("raw", [None, [], ["SystemExit", ["tuple"], {}], ["InputError", None, {}]], ids=str)
def test_error_that_no_process_sends_is_refused_by_name(raw: Any) -> None:
    with pytest.raises(FrameError, match="unknown error"):
        unpack_error(raw)

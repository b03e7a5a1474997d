"""Jobs, results and errors as the contents of frames.

A value is a JSON scalar, or a list of a tag and its parts: ["array", number], ["tuple", value, ...], ["list", value,
...], ["float", "nan"], ["picture", width, height, number], or the name of one of `CLASSES` and the values of its
fields. A value whose field does not have the type that its class declares is refused, so a received object is as
well-formed as one that was created here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from math import isfinite
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
from jaxtyping import AbstractArray
from numpy import ndarray
from PIL import Image

import model.errors
import service.problems.errors
from model.embeddings.attention_map import Attention, Box, PatchWeights, TextWeights, TokenWeight
from model.embeddings.encoding import Encoding, ItemTokens, TokenRows
from model.embeddings.free_text import FreeTextBias, FreeTextRelation
from model.errors import RcmlError
from service.engine.model_jobs import EncodeItemJob, ExplainJob, ReadRelationJob

from .frames import TYPES, FrameError

CLASSES: Mapping[str, type] = {
    cls.__name__: cls
    for cls in (
        EncodeItemJob,
        ReadRelationJob,
        ExplainJob,
        Encoding,
        ItemTokens,
        TokenRows,
        FreeTextRelation,
        FreeTextBias,
        Attention,
        TextWeights,
        TokenWeight,
        PatchWeights,
        Box,
    )
}
"""Dataclasses that frames may contain, by name."""

ERRORS: Mapping[str, type[RcmlError]] = {
    name: cls
    for module in (model.errors, service.problems.errors)
    for name, cls in vars(module).items()
    if isinstance(cls, type) and issubclass(cls, RcmlError)
} | {FrameError.__name__: FrameError}
"""Errors that reach the caller as they were raised, by name. Any other error becomes a `RuntimeError`."""


def pack(value: object, arrays: list[ndarray]) -> Any:
    """Return a value as JSON, and append its arrays to `arrays`.

    Raises:
        FrameError: No frame may contain the value.
    """
    match value:
        case float() if not isfinite(value):  # orjson would write null
            return ["float", str(value)]
        case None | str() | bool() | int() | float():
            return value
        case tuple() | list():
            return [type(value).__name__, *(pack(one, arrays) for one in value)]
        case ndarray():
            arrays.append(value)
            return ["array", len(arrays) - 1]
        case Image.Image():
            picture = value.convert("RGB")
            arrays.append(np.frombuffer(picture.tobytes(), np.uint8))
            return ["picture", *picture.size, len(arrays) - 1]
    name = type(value).__name__
    if CLASSES.get(name) is not type(value):
        raise FrameError(f"An object of type {name} cannot be sent to another process.")
    return [name, *(pack(getattr(value, field), arrays) for field in _CHECKS[name])]


def unpack(raw: Any, arrays: Sequence[ndarray]) -> Any:
    """Return the value that `pack` was given.

    Raises:
        FrameError: `raw` is not the JSON of a value, or a field has a value of another type than its class declares.
    """
    if not isinstance(raw, list | dict):
        return raw
    tag, *parts = raw if isinstance(raw, list) and raw else [""]
    try:
        if tag in CLASSES:
            return _object(tag, [unpack(part, arrays) for part in parts])
        match tag, parts:
            case "tuple", _:
                return tuple(unpack(part, arrays) for part in parts)
            case "list", _:
                return [unpack(part, arrays) for part in parts]
            case "float", [("nan" | "inf" | "-inf") as name]:
                return float(name)
            case "array", [int(number)] if number >= 0:
                return arrays[number]
            case "picture", [int(width), int(height), int(number)] if number >= 0:
                if width > 0 and height > 0 and arrays[number].nbytes == 3 * width * height:
                    return Image.frombytes("RGB", (width, height), arrays[number].tobytes())
    except (TypeError, IndexError):  # an unhashable tag or a missing array
        pass
    raise FrameError(f"A frame contains an unknown value: {str(raw)[:80]}.")


def _object(name: str, values: Sequence[Any]) -> Any:
    """Return an object of the class `name` with these values of its fields."""
    checks = _CHECKS[name]
    if len(values) != len(checks):
        raise FrameError(f"A frame contains a {name} with {len(values)} fields; it has {len(checks)}.")
    for value, (field, fits) in zip(values, checks.items(), strict=True):
        if not fits(value):
            raise FrameError(f"The field {field} of a received {name} has a value of a wrong type.")
    return CLASSES[name](*values)


def pack_error(error: BaseException) -> Any:
    """Return an error as JSON."""
    name = type(error).__name__
    if ERRORS.get(name) is type(error):
        try:
            return [name, pack(error.args, []), {key: pack(one, []) for key, one in vars(error).items()}]
        except FrameError:  # then its message is sent
            pass
    return ["RuntimeError", pack((f"{name}: {error}",), []), {}]


def unpack_error(raw: Any) -> Exception:
    """Return the error that `pack_error` was given, or a `RuntimeError` with its message.

    Raises:
        FrameError: `raw` is not the JSON of an error.
    """
    match raw:
        case ["RuntimeError", ["tuple", str(message)], {}]:
            return RuntimeError(message)
        case [str(name), list(args), dict(attributes)] if name in ERRORS:
            error = ERRORS[name].__new__(ERRORS[name])
            error.args = tuple(unpack(args, ()))
            vars(error).update({key: unpack(one, ()) for key, one in attributes.items()})
            return error
    raise FrameError(f"A frame contains an unknown error: {str(raw)[:80]}.")


def _check_of(declared: Any) -> Callable[[Any], bool]:
    """Return a function that tells whether a value has the declared type of a field."""
    if get_origin(declared) in (Union, UnionType):
        checks = [_check_of(one) for one in get_args(declared)]
        return lambda value: any(fits(value) for fits in checks)
    if get_origin(declared) is tuple:
        element = _check_of(get_args(declared)[0])
        return lambda value: isinstance(value, tuple) and all(element(one) for one in value)
    if issubclass(declared, AbstractArray):
        types = {dtype.num for dtype in TYPES.values() if dtype.name in declared.dtypes}
        axes = len(declared.dims)
        return lambda value: isinstance(value, ndarray) and value.dtype.num in types and value.ndim == axes
    allowed = (int, float) if declared is float else (declared,)
    if declared in (int, float):
        return lambda value: isinstance(value, allowed) and not isinstance(value, bool)
    assert declared in (str, bool, NoneType, Image.Image) or declared in CLASSES.values(), declared
    return lambda value: isinstance(value, allowed)


_CHECKS: Mapping[str, Mapping[str, Callable[[Any], bool]]] = {
    name: {field.name: _check_of(get_type_hints(cls)[field.name]) for field in fields(cls)}
    for name, cls in CLASSES.items()
}
"""Function that checks a value of each field of each class, in the order of the fields."""

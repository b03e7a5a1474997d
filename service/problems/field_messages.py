"""Plain-English messages for values that pydantic rejects: the field, the value, and the remedy.

The command line and the HTTP problems share this module, so that both use the same wording. It imports only pydantic.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

MAX_NAMED_FIELDS = 6
"""Maximum number of fields of an object that a message names."""

ECHO_LENGTH = 80
"""Maximum number of characters of a rejected value that a message repeats."""

JsonSchema = Mapping[str, Any]

Verb = Literal["send", "give"]
"""Verb in a remedy: HTTP clients "send" a value, and users of the command line "give" a value."""

_BOUNDS = {
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "greater_than": "must be greater than {gt}",
    "less_than": "must be less than {lt}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "string_too_short": "must have {min_length} or more characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have {min_length} or more entries",
    "too_long": "must have at most {max_length} entries",
    "string_unicode": "must be valid Unicode without lone surrogates",
}

_WISHES: dict[str, str] = {}
"""What each type of a field accepts, in words, by the name of the type. Computing it leaves cycles of objects."""


@dataclass(frozen=True)
class FieldMessage:
    """Message for one rejected value: a sentence that states the error, and optionally a sentence with the remedy."""

    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()


def field_message(error: ErrorDetails, field: FieldInfo | None, name: str, verb: Verb) -> FieldMessage:
    """Return the message for a pydantic error about `field` (see `place`). `name` is its name in the message."""
    context = error.get("ctx", {})
    if "remedy" in context:
        return FieldMessage(error["msg"], context["remedy"])
    if error["type"] == "value_error":
        return FieldMessage(f"{context['error']}.")
    if error["type"] == "extra_forbidden":
        return FieldMessage(f"{name} is not a known field.", "Remove it, or correct its name.")
    if error["type"] == "missing":
        purpose = f": {field.description}" if field and field.description else ""
        return FieldMessage(f"{name} is missing.", f"{verb.capitalize()} {wish(field)}{purpose}.")
    remedy = f"{verb.capitalize()} {wish(field)}."
    value = quoted(error["input"])
    if error["type"] not in _BOUNDS:
        return FieldMessage(f"{name} cannot be {value}.", remedy)
    past = {"send": "sent", "give": "given"}[verb]
    return FieldMessage(f"{name} {_BOUNDS[error['type']].format(**context)}; {value} was {past}.", remedy)


@dataclass(frozen=True)
class Place:
    """Location of a rejected value: the path in the user's input, and the field at this path, or None if unknown."""

    path: tuple[str | int, ...]
    field: FieldInfo | None


def place(model: type[BaseModel], location: Sequence[str | int]) -> Place:
    """Convert the location in a pydantic error about `model` to a `Place`.

    Pydantic's location also contains union labels and the marker `[key]` for an error in a dict key. The user sent
    neither of them, so the path omits both. An element of a list or a dict is treated as a field of the element type.
    """
    path: list[str | int] = []
    kind: Any = model
    field: FieldInfo | None = None
    entered: object = None
    for part in location:
        if part == "[key]" and entered is not None:
            kind, entered = get_args(entered)[0], None
            field = FieldInfo.from_annotation(kind)
            continue
        entered = None
        kinds = _kinds(kind)
        if len(kinds) > 1:
            kind = next((one for one in kinds if part in _labels(one)), kinds[0])
            continue
        path.append(part)
        [kind] = kinds
        bare = _bare(kind)
        if isinstance(bare, type) and issubclass(bare, BaseModel):
            field = bare.model_fields.get(str(part))
            kind = None if field is None else field.annotation
        elif get_origin(bare) in (list, tuple, dict):
            entered = bare if get_origin(bare) is dict else None
            kind = get_args(bare)[1 if entered else 0]
            field = FieldInfo.from_annotation(kind)
    return Place(tuple(path), field)


def _kinds(annotation: Any) -> list[Any]:
    """Return the possible types of a value except None. If there are several, pydantic's location names one of them."""
    bare = _bare(annotation)
    if get_origin(bare) not in (Union, UnionType):
        return [annotation]
    return [kind for part in get_args(bare) if part is not NoneType for kind in _kinds(part)]


def _labels(kind: Any) -> set[str]:
    """Return the labels that pydantic can use for one type of a union: its tags, or the name of the type."""
    notes = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    tags = {note.tag for note in notes if isinstance(note, Tag)}
    return tags or {getattr(_bare(kind), "__name__", "")}


def _bare(annotation: Any) -> Any:
    """Return a type without its `Annotated` metadata."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def wish(field: FieldInfo | None) -> str:
    """Describe what a field accepts, such as "a whole number from 1 to 100", or "a JSON object" if `field` is None."""
    if field is None:
        return "a JSON object"
    annotation = field.rebuild_annotation()
    name = repr(annotation)  # some annotations cannot be hashed
    if name not in _WISHES:
        schema = TypeAdapter(annotation).json_schema()
        _WISHES[name] = _wish(schema, schema.get("$defs", {}))
    return _WISHES[name]


def quoted(value: object) -> str:
    """Return a rejected value as JSON, shortened to keep messages and logs small."""
    if isinstance(value, bytes):
        value = value[:ECHO_LENGTH].decode(errors="replace")
    if isinstance(value, str):
        value = value[:ECHO_LENGTH] + "…" * (len(value) > ECHO_LENGTH)
    elif isinstance(value, list | dict) and value:
        return (
            f"a list of length {len(value)}" if isinstance(value, list) else f"an object of size {len(value)}"
        )
    elif isinstance(value, int) and abs(value) >= 10**ECHO_LENGTH:
        return f"a number with more than {ECHO_LENGTH} digits"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text.encode(errors="backslashreplace").decode()


def _wish(schema: JsonSchema, definitions: JsonSchema) -> str:
    if "$ref" in schema:
        return _wish(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if parts := schema.get("anyOf") or schema.get("oneOf"):
        return _wish_for_one_of([part for part in parts if part.get("type") != "null"], definitions)
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    match schema.get("type"):
        case "integer":
            return f"a whole number{_range(schema)}"
        case "number":
            return f"a number{_range(schema)}"
        case "boolean":
            return "true or false"
        case "array":
            return f"a list of values ({_wish(schema['items'], definitions).removeprefix('one of ')})"
        case "string" if schema.get("format") == "path":
            return "a path"
        case "string":
            return f"text{_length(schema)}"
        case _ if 0 < len(names := schema.get("properties", {})) <= MAX_NAMED_FIELDS:
            return f"a JSON object (fields: {', '.join(names)})"
        case _:
            return "a JSON object"


def _wish_for_one_of(kinds: Sequence[JsonSchema], definitions: JsonSchema) -> str:
    """Describe a union by its simple types. Whole numbers are omitted if any number is accepted."""
    simple = [kind for kind in kinds if "$ref" not in kind] or kinds[:1]
    if any(kind.get("type") == "number" for kind in simple):
        simple = [kind for kind in simple if kind.get("type") != "integer"]
    return " or ".join(dict.fromkeys(_wish(kind, definitions) for kind in simple))


def _range(schema: JsonSchema) -> str:
    multiple = f" that is a multiple of {schema['multipleOf']}" if "multipleOf" in schema else ""
    if "minimum" in schema and "maximum" in schema:
        return f" from {schema['minimum']} to {schema['maximum']}{multiple}"
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    bounds = " and ".join(f"{word} {schema[key]}" for key, word in words.items() if key in schema)
    of = " of" if bounds.startswith("at ") else ""
    return f"{of} {bounds}{multiple}" if bounds else multiple


def _length(schema: JsonSchema) -> str:
    least, most = schema.get("minLength"), schema.get("maxLength")
    if least is not None and most is not None:
        return f" of {least} to {most} characters"
    if least is not None:
        return f" of {least} or more characters"
    return f" of at most {most} characters" if most is not None else ""

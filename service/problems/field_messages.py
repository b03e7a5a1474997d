"""Messages in plain English on what is wrong with a value that pydantic refused, and what to give instead.

The command line and the HTTP problems speak through this file, so that both name the field, the value and the
remedy in the same words. Loads nothing but pydantic.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

ECHO_LENGTH = 80
"""Characters of a refused value that are repeated back."""

JsonSchema = Mapping[str, Any]

Verb = Literal["send", "give"]
"""What a user does with a value: they send it to a server, and give it to a command."""

_BOUNDS = {
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "greater_than": "must be above {gt}",
    "less_than": "must be below {lt}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "string_too_short": "must have {min_length} or more characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have {min_length} or more entries",
    "too_long": "must have at most {max_length} entries",
    "string_unicode": "must be text without lone surrogates",
}


@dataclass(frozen=True)
class FieldMessage:
    """One refused value: a sentence on what is wrong, and one on what to do unless the first says it."""

    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()


def field_message(error: ErrorDetails, field: FieldInfo | None, name: str, verb: Verb) -> FieldMessage:
    """Word one pydantic error about `field` (see `place`), which its user calls `name`."""
    context = error.get("ctx", {})
    if "remedy" in context:
        return FieldMessage(error["msg"], context["remedy"])
    if error["type"] == "value_error":
        return FieldMessage(f"{context['error']}.")
    if error["type"] == "extra_forbidden":
        return FieldMessage(f"{name} is not known here.", "Leave it out, or correct its name.")
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
    """Where a refused value lies: the way to it as its user knows it, and the field that it should be, if any."""

    path: tuple[str | int, ...]
    field: FieldInfo | None


def place(model: type[BaseModel], location: Sequence[str | int]) -> Place:
    """Find the place of one of pydantic's errors about `model`.

    Its location also says which kind of a union the value was taken for, and whether the key of an entry is meant and
    not its value: the user sent neither. What is in a list or a dict is a field like its type.
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
    """List the types that a value may have, but for None; pydantic labels one of several in a location."""
    bare = _bare(annotation)
    if get_origin(bare) not in (Union, UnionType):
        return [annotation]
    return [kind for part in get_args(bare) if part is not NoneType for kind in _kinds(part)]


def _labels(kind: Any) -> set[str]:
    """Return the labels that pydantic may have for one type of a union: its tag, or its name."""
    notes = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    tags = {note.tag for note in notes if isinstance(note, Tag)}
    return tags or {getattr(_bare(kind), "__name__", "")}


def _bare(annotation: Any) -> Any:
    """Strip a type of its annotations."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def wish(field: FieldInfo | None) -> str:
    """Word what a field takes, as in "a whole number from 1 to 100"; a JSON object if there is no field."""
    if field is None:
        return "a JSON object"
    schema = TypeAdapter(field.rebuild_annotation()).json_schema()
    return _wish(schema, schema.get("$defs", {}))


def quoted(value: object) -> str:
    """Write a refused value as JSON, cut short: a user recognises it, a log is not flooded."""
    if isinstance(value, bytes):
        value = value[:ECHO_LENGTH].decode(errors="replace")
    if isinstance(value, str):
        value = value[:ECHO_LENGTH] + "…" * (len(value) > ECHO_LENGTH)
    elif isinstance(value, list | dict) and value:
        return f"a list of {len(value)}" if isinstance(value, list) else f"an object of {len(value)}"
    elif isinstance(value, int) and abs(value) >= 10**ECHO_LENGTH:
        return f"a number of more than {ECHO_LENGTH} digits"
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
            return f"one or more of {_wish(schema['items'], definitions).removeprefix('one of ')}"
        case "string" if schema.get("format") == "path":
            return "a path"
        case "string":
            return f"text{_length(schema)}"
        case _:
            return "a JSON object"


def _wish_for_one_of(kinds: Sequence[JsonSchema], definitions: JsonSchema) -> str:
    """Word the simple ones of several types; numbers include whole ones."""
    simple = [kind for kind in kinds if "$ref" not in kind] or kinds[:1]
    if any(kind.get("type") == "number" for kind in simple):
        simple = [kind for kind in simple if kind.get("type") != "integer"]
    return " or ".join(dict.fromkeys(_wish(kind, definitions) for kind in simple))


def _range(schema: JsonSchema) -> str:
    multiple = f" that is a multiple of {schema['multipleOf']}" if "multipleOf" in schema else ""
    if "minimum" in schema and "maximum" in schema:
        return f" from {schema['minimum']} to {schema['maximum']}{multiple}"
    words = {
        "minimum": "of at least",
        "maximum": "of at most",
        "exclusiveMinimum": "above",
        "exclusiveMaximum": "below",
    }
    bounds = [f"{word} {schema[key]}" for key, word in words.items() if key in schema]
    return "".join(f" {bound}" for bound in [" and ".join(bounds)] if bound) + multiple


def _length(schema: JsonSchema) -> str:
    least, most = schema.get("minLength"), schema.get("maxLength")
    if least is not None and most is not None:
        return f" of {least} to {most} characters"
    if least is not None:
        return f" of {least} or more characters"
    return f" of at most {most} characters" if most is not None else ""

"""Says in plain English what is wrong with a value that pydantic refused, and what to give instead.

The command line and the HTTP problems speak through this file, so that both name the field, the value and the
remedy in the same words. Loads nothing but pydantic.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
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
    "string_unicode": "must be text without lone surrogates",
}


@dataclass(frozen=True)
class Refusal:
    """One refused value: a sentence on what is wrong, and one on what to do unless the first says it."""

    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()


def refusal(error: ErrorDetails, field: FieldInfo | None, name: str, verb: Verb) -> Refusal:
    """Word one pydantic error about `field` (see `field_at`), which its user calls `name`."""
    context = error.get("ctx", {})
    if "remedy" in context:
        return Refusal(error["msg"], context["remedy"])
    if error["type"] == "value_error":
        return Refusal(f"{context['error']}.")
    if error["type"] == "extra_forbidden":
        return Refusal(f"{name} is not known here.", "Leave it out, or correct its name.")
    if error["type"] == "missing":
        purpose = f": {field.description}" if field and field.description else ""
        return Refusal(f"{name} is missing.", f"{verb.capitalize()} {wish(field)}{purpose}.")
    remedy = f"{verb.capitalize()} {wish(field)}."
    value = echo(error["input"])
    if error["type"] not in _BOUNDS:
        return Refusal(f"{name} cannot be {value}.", remedy)
    past = {"send": "sent", "give": "given"}[verb]
    return Refusal(f"{name} {_BOUNDS[error['type']].format(**context)}; {value} was {past}.", remedy)


def field_at(model: type[BaseModel], path: Sequence[str | int]) -> FieldInfo | None:
    """The field that `path` leads to from `model`, if any; a position in a list leads to the list."""
    field = None
    entries: type[BaseModel] | None = None
    for part in path:
        if entries is not None:  # the part is the name of an entry
            model, entries = entries, None
            continue
        found = model.model_fields.get(str(part))
        if found is None:
            return field if isinstance(part, int) else None
        field = found
        union = get_origin(found.annotation) in (Union, UnionType)  # of which one has fields
        kinds = get_args(found.annotation) if union else (found.annotation,)
        models = [
            kind for kind in map(_bare, kinds) if isinstance(kind, type) and issubclass(kind, BaseModel)
        ]
        if models:
            model = models[0]
        elif get_origin(found.annotation) is dict:
            entries = next(iter(get_args(found.annotation)[1:]))
    return field


def _bare(annotation: object) -> object:
    """A type without what annotates it."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def wish(field: FieldInfo | None) -> str:
    """What a field takes, as in "a whole number from 1 to 100"; a JSON object where there is no field."""
    if field is None:
        return "a JSON object"
    schema = TypeAdapter(field.rebuild_annotation()).json_schema()
    return _wish(schema, schema.get("$defs", {}))


def echo(value: object) -> str:
    """A refused value as JSON, cut short: a user recognises it, a log is not flooded."""
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
        return _wish(next(part for part in parts if part.get("type") != "null"), definitions)
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

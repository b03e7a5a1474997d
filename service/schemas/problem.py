"""What a refusal looks like (RFC 9457)."""

from pydantic import BaseModel, Field


class FieldProblem(BaseModel):
    """What is wrong with one field of a request."""

    pointer: str | None = Field(None, description="JSON pointer to the field of the body, as in #/k")
    parameter: str | None = Field(None, description="name of the path or query parameter, where it is one")
    value: str | None = Field(None, description="what was sent, as JSON, cut short; null where nothing was")
    message: str = Field(description="what is wrong, in a sentence")
    remedy: str = Field(description="what to send instead, in a sentence")


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field(description="kind of problem; about:blank where the status says it all")
    title: str = Field(description="the kind in words")
    status: int = Field(ge=400, le=599, description="the HTTP status")
    detail: str = Field(description="what went wrong this time, and what to do about it")
    instance: str = Field(description="path of the request")
    errors: list[FieldProblem] | None = Field(None, description="the fields at fault, where fields are")
    known: list[str] | None = Field(
        None, description="the ids there are, where an unknown relation was named"
    )
    request_id: str | None = Field(
        None, description="what the server's log calls the request, where the server failed"
    )

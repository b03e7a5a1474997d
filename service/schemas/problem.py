"""Schema of an error response: a problem document (RFC 9457)."""

from pydantic import BaseModel, Field


class FieldProblem(BaseModel):
    """Error in one field or parameter of a request."""

    pointer: str | None = Field(None, description="JSON pointer to the field in the body, such as `#/k`")
    parameter: str | None = Field(
        None, description="name of the path or query parameter, if the error is in a parameter"
    )
    value: str | None = Field(
        None, description="rejected value as JSON, truncated; null if no value was sent"
    )
    message: str = Field(description="explanation of the error, in one sentence")
    remedy: str = Field(description="how to correct the request, in one sentence")


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field(
        description="URI of the kind of problem; `about:blank` if the HTTP status already identifies it"
    )
    title: str = Field(description="short name of the kind of problem")
    status: int = Field(ge=400, le=599, description="HTTP status of the response")
    detail: str = Field(description="explanation of this error and how to correct it")
    instance: str = Field(description="path of the request")
    errors: list[FieldProblem] | None = Field(
        None, description="invalid fields and parameters of the request, if any"
    )
    known: list[str] | None = Field(
        None, description="valid names, if the request names an unknown relation or attribute"
    )
    request_id: str | None = Field(
        None, description="ID of the request in the server's log, if the server failed"
    )

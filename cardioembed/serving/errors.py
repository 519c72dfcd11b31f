"""What a client is told when a request cannot be served, in the shape that OpenAI's clients read."""

from __future__ import annotations

from starlette.responses import JSONResponse


class ApiError(Exception):
    """A request that is refused or failed.

    Attributes:
        status: HTTP status.
        message: What was wrong, what is allowed and what to do.
        code: A short name for programs.
        param: The field of the body that is wrong, None where it is none.
        headers: HTTP headers that belong to the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers or {}

    @property
    def type(self) -> str:
        """OpenAI's word for this kind of error."""
        if self.status >= 500:
            return "server_error"
        return {401: "authentication_error", 429: "rate_limit_error"}.get(self.status, "invalid_request_error")

    def response(self) -> JSONResponse:
        """``{"error": {"message", "type", "param", "code"}}``."""
        body = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return JSONResponse({"error": body}, self.status, self.headers)

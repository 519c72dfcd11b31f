"""How much one request may ask for and how much may wait; no heavy imports, the command line reads the defaults."""

from __future__ import annotations

from dataclasses import dataclass

from cardioembed.errors import UserError

_LONGEST_WAIT_MS = 60_000


@dataclass(frozen=True)
class Limits:
    """Bounds of the service.

    Attributes:
        max_body_bytes: Longest request body.
        max_bodies_bytes: Bodies of all requests in work together, which bounds the memory that clients can take.
        body_seconds: Longest time in which a body must have arrived.
        max_inputs: Texts in one request.
        max_text_chars: Characters of one text; what is beyond the model's ``max_length`` in tokens is cut.
        max_queue: Texts of all requests that wait or are in the model.
        max_batch_tokens: Tokens of a batch; 1 serves every text alone, None takes
            ``cardioembed.serving.batching.default_batch_tokens``.
        max_concurrent_batches: Batches in the model at once; None takes
            ``cardioembed.serving.batching.default_concurrent_batches``.
        max_wait_ms: Milliseconds that the first text of a batch waits for others.
        max_top_k: Hits of one search.
    """

    max_body_bytes: int = 8 << 20
    max_bodies_bytes: int = 64 << 20
    body_seconds: float = 30.0
    max_inputs: int = 2048
    max_text_chars: int = 50_000
    max_queue: int = 8192
    max_batch_tokens: int | None = None
    max_concurrent_batches: int | None = None
    max_wait_ms: float = 3.0
    max_top_k: int = 1000

    def __post_init__(self) -> None:
        for name, least in (("max_body_bytes", 1), ("max_inputs", 1), ("max_text_chars", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name} {getattr(self, name)} is less than {least}; give {least} or more")
        if not 0 <= self.max_wait_ms <= _LONGEST_WAIT_MS:
            raise UserError(f"max_wait_ms {self.max_wait_ms} is not from 0 to {_LONGEST_WAIT_MS:,}; give milliseconds")
        if self.max_batch_tokens is not None and self.max_batch_tokens < 1:
            raise UserError(f"max_batch_tokens {self.max_batch_tokens} is less than 1; 1 serves every text alone")
        if self.max_concurrent_batches is not None and self.max_concurrent_batches < 1:
            raise UserError(f"max_concurrent_batches {self.max_concurrent_batches} is less than 1; give 1 or more")
        for part, whole in (("max_inputs", "max_queue"), ("max_body_bytes", "max_bodies_bytes")):
            if getattr(self, part) > getattr(self, whole):
                raise UserError(
                    f"{part} {getattr(self, part)} is more than {whole} {getattr(self, whole)}: such a request could "
                    f"never be served; lower {part} or raise {whole}"
                )

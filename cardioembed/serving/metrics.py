"""What Prometheus may ask: counts, latencies, batches, queue, tokens. No text and no key is in any of them."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
_TOKENS = tuple(2**power for power in range(3, 16))


class Metrics:
    """The service's own registry, so that two services in one process do not mix.

    Args:
        queue: Tells how many texts wait.
    """

    def __init__(self, queue: Callable[[], int]) -> None:
        registry = self.registry = CollectorRegistry()
        labels = ("path", "status")
        self.requests = Counter("cardioembed_requests", "Answered requests", labels, registry=registry)
        self.errors = Counter("cardioembed_errors", "Requests answered with an error", ("code",), registry=registry)
        self.abandoned = Counter("cardioembed_abandoned", "Requests whose client left", registry=registry)
        self.seconds = Histogram(
            "cardioembed_request_seconds", "Seconds to the whole answer", ("path",), buckets=_SECONDS, registry=registry
        )
        self.batch_texts = Histogram(
            "cardioembed_batch_texts", "Texts that went through the model together", buckets=_TEXTS, registry=registry
        )
        self.batch_tokens = Histogram(
            "cardioembed_batch_tokens", "Their tokens, without padding", buckets=_TOKENS, registry=registry
        )
        self.tokens = Counter("cardioembed_tokens", "Tokens of answered requests", registry=registry)
        self.cut = Counter("cardioembed_cut_texts", "Texts longer than the model takes", registry=registry)
        waiting = Gauge("cardioembed_queue_texts", "Texts that wait or are in the model", registry=registry)
        waiting.set_function(queue)
        ProcessCollector(registry=registry)

    def batch(self, texts: int, tokens: int) -> None:
        """Notes a batch that went through the model."""
        self.batch_texts.observe(texts)
        self.batch_tokens.observe(tokens)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Notes an answer."""
        self.requests.labels(path, status).inc()
        self.seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)

"""Where a model is served and how it may be asked. Keys come from the environment and stand in no message."""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from cardioembed.errors import UserError


@dataclass(frozen=True)
class Endpoint:
    """Where a model is served and how it may be asked.

    Attributes:
        base_url: The server's address, as a rule up to and including ``/v1``.
        model: The model's name on that server.
        api_key_env: The environment variable that holds the key; a server on this machine needs none.
        max_concurrency: Requests in flight at once.
        requests_per_minute: Upper limit, spread evenly; None for no limit.
        max_retries: Repetitions of one request, each after a longer pause.
        timeout: Seconds that one attempt may take.
    """

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    max_concurrency: int = 16
    requests_per_minute: float | None = None
    max_retries: int = 6
    timeout: float = 120.0


def check_endpoint(endpoint: Endpoint) -> None:
    """Finds what can be found wrong before anything is sent.

    Raises:
        UserError: The address is no URL, or the key's variable is not set for a server elsewhere.
    """
    key, name = key_of(endpoint), endpoint.api_key_env
    if not is_loopback(endpoint.base_url) and not key:
        raise UserError(
            f"{name} is not set, and {urlsplit(endpoint.base_url).hostname} is not this machine. Set the key: "
            f"export {name}=... (any text if the server wants none), or change api_key_env"
        )
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"the key in {name} has characters that no key has; set it again")


def is_loopback(base_url: str) -> bool:
    """Whether an address is of this machine.

    Raises:
        UserError: It is no address.
    """
    try:
        url = urlsplit(base_url)
        host = url.hostname if url.scheme in ("http", "https") else None
        _ = url.port
    except ValueError:
        host = None
    if not host:
        raise UserError(f"base_url {base_url!r} is not an address; give one such as http://127.0.0.1:8000/v1")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def key_of(endpoint: Endpoint) -> str:
    """The key in the endpoint's variable, "" for none."""
    return os.environ.get(endpoint.api_key_env, "").strip()

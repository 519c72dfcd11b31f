"""Serves a model over HTTP: embeddings in OpenAI's shape, search over a saved index, health and metrics.

    python -m cardioembed.serving --model runs/laptop/03_model
    curl http://127.0.0.1:8000/v1/embeddings -d '{"model": "runs/laptop/03_model", "input": ["Atrial fibrillation"]}'

Other machines reach it only with --host, and then with a key; let a proxy stand before it that closes connections which
send nothing:

    export CARDIOEMBED_KEY=...
    python -m cardioembed.serving --model runs/laptop/03_model --host 0.0.0.0 --api-key-env CARDIOEMBED_KEY
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

from cardioembed.endpoint import is_loopback
from cardioembed.errors import UserError
from cardioembed.serving.limits import Limits

PACKAGES = ("fastapi", "uvicorn", "prometheus_client")
SHUTDOWN_SECONDS = 30
_DEFAULTS = Limits()
# Defaults that follow from the device, in words; see cardioembed.serving.batching.
_ON_DEVICE = {"max_batch_tokens": "512 on a CPU, else 16,384", "max_concurrent_batches": "2 on a CPU, else 1"}


def main(arguments: list[str] | None = None) -> int:
    """Serves until it is stopped; a user's mistake ends with advice and exit code 2."""
    options = _parser().parse_args(arguments)
    try:
        _require_packages()
        limits = _limits(options)
        key = _key(options)
        listener = bind(options.host, options.port)
        with listener:
            serve(options, limits, key, listener)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or 'file'}: {error.strerror}; check the path", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def serve(options: argparse.Namespace, limits: Limits, key: str | None, listener: socket.socket) -> None:
    """Loads the model, opens the index and answers on a bound socket until SIGINT or SIGTERM."""
    # Read by OpenMP as torch is imported: threads that wait for each other's part of a product sleep instead of
    # spinning, so that the cores are free for the requests that arrive meanwhile.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import uvicorn

    from cardioembed.embedder.saving import load_model
    from cardioembed.serving.app import create_app
    from cardioembed.serving.indexes import open_index

    embedder = load_model(options.model, device=options.device, base=options.base)
    search = open_index(options.index, embedder) if options.index else None
    name = options.model_name or options.model
    hosts = own_names(options.host) if key is None else None
    app = create_app(embedder, name, limits=limits, search=search, api_key=key, hosts=hosts)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"{name}: {embedder.dimension} dimensions, {embedder.device}, at http://{shown}:{port}/v1", flush=True)
    # The log of accesses stays off: whom texts came from is as private as the texts.
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=SHUTDOWN_SECONDS
    )
    uvicorn.Server(config).run(sockets=[listener])


def bind(host: str, port: int) -> socket.socket:
    """A socket of its own that listens at an address, before the model loads.

    Raises:
        UserError: The address is not this machine's, or another program has it.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port} is not a port; give one from 1 to 65535, or 0 for a free one")
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()  # else a second service could be bound to the same port
    except OSError as error:
        if listener:
            listener.close()
        reason = error.strerror or error
        raise UserError(f"--host {host} --port {port} cannot be used: {reason}; choose another port or host") from None
    return listener


def own_names(host: str) -> tuple[str, ...] | None:
    """The names that requests to a loopback address may give it; None for an address that is open to others."""
    own = f"[{host}]" if ":" in host else host.lower()
    return tuple(dict.fromkeys((own, "127.0.0.1", "localhost", "[::1]"))) if _local(host) else None


def _local(host: str) -> bool:
    try:
        return is_loopback(f"http://[{host}]" if ":" in host else f"http://{host}")
    except UserError:
        raise UserError(f"--host {host!r} is not an address; give one such as 127.0.0.1 or 0.0.0.0") from None


def _key(options: argparse.Namespace) -> str | None:
    name = options.api_key_env
    if name is None:
        if not _local(options.host) and not options.allow_no_key:
            raise UserError(
                f"--host {options.host} opens the service to other machines; set a key with --api-key-env NAME, or say "
                "--allow-no-key where something else guards it"
            )
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise UserError(f"{name} is not set; set the key: export {name}=...")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"the key in {name} has characters that no HTTP header has; choose one of letters and digits")
    return key


def _limits(options: argparse.Namespace) -> Limits:
    body = options.max_body_mib << 20
    return Limits(
        max_body_bytes=body,
        max_bodies_bytes=max(body, _DEFAULTS.max_bodies_bytes),
        max_inputs=options.max_inputs,
        max_text_chars=options.max_text_chars,
        max_queue=options.max_queue,
        max_batch_tokens=options.max_batch_tokens,
        max_concurrent_batches=options.max_concurrent_batches,
        max_wait_ms=options.max_wait_ms,
    )


def _require_packages() -> None:
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise UserError(f"the service needs {', '.join(missing)}; install them: pip install -e '.[serve]'")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cardioembed.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", required=True, metavar="FOLDER", help="runs/<name>/03_model, or a base")
    add("--model-name", metavar="NAME", help="the model's name in requests (default: as written after --model)")
    add("--base", metavar="FOLDER", help="where the model's base is now, if it moved since training")
    add("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    add("--index", type=Path, metavar="FOLDER", help="a saved index for POST /search")
    add("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine only)")
    add("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    add("--api-key-env", metavar="NAME", help="environment variable that holds the key which requests must bring")
    add("--allow-no-key", action="store_true", help="serve other machines without a key")
    for name, kind, text in (
        ("max_batch_tokens", int, "tokens of a batch; 1 serves every text alone"),
        ("max_concurrent_batches", int, "batches in the model at once, which share the cores"),
        ("max_wait_ms", float, "milliseconds that a text waits for others"),
        ("max_queue", int, "texts that may wait; more are answered with 429"),
        ("max_inputs", int, "texts of one request"),
        ("max_text_chars", int, "characters of one text"),
    ):
        default = getattr(_DEFAULTS, name)
        shown = _ON_DEVICE[name] if default is None else f"{default:,}"
        add(f"--{name.replace('_', '-')}", type=kind, default=default, metavar="N", help=f"{text} (default: {shown})")
    mib = _DEFAULTS.max_body_bytes >> 20
    add("--max-body-mib", type=int, default=mib, metavar="N", help=f"longest request body (default: {mib})")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())

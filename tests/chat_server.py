"""A chat server on loopback that answers as the test says: well, late, brokenly or not at all."""

import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Reply:
    """What goes over the wire; ``fault`` is reset, truncate or hang."""

    body: dict | str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    fault: str = ""


def answer(text: str | None, finish_reason: str = "stop", **message) -> Reply:
    """A chat completion."""
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text, **message}}
    return Reply({"choices": [choice], "usage": {"prompt_tokens": 11, "completion_tokens": 7}})


def error(status: int, message: str, **headers: str) -> Reply:
    return Reply({"error": {"message": message}}, status, headers)


class ChatServer:
    """Serves ``/v1/chat/completions`` and ``/v1/models`` while the ``with`` block runs.

    Args:
        respond: ``(last user message, how often it was asked before)`` to a reply; it may block.

    Attributes:
        asked: How often each last user message came.
        requests: Bodies in the order of their arrival.
        keys: The Authorization headers that came.
        most_at_once: Highest number of chats in flight.
        hold: Hanging replies wait for it.
    """

    def __init__(self, respond: Callable[[str, int], Reply], models: tuple[str, ...] = ("tiny",)) -> None:
        self.respond, self.models = respond, models
        self.asked: Counter[str] = Counter()
        self.requests: list[dict] = []
        self.keys: set[str | None] = set()
        self.most_at_once = self._now = 0
        self.hold = threading.Event()
        self._stopped = False
        self._lock = threading.Lock()

    def __enter__(self) -> "ChatServer":
        chat = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                models = {"object": "list", "data": [{"id": name, "object": "model"} for name in chat.models]}
                chat._send(self, Reply(models) if self.path == "/v1/models" else error(404, "no such page"))

            def do_POST(self) -> None:
                chat._post(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.hold.set()
        self.stop()

    def stop(self) -> None:
        """From now on open connections are reset and new ones refused."""
        if not self._stopped:
            self._stopped = True
            self._server.shutdown()
            self._server.server_close()

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else json.dumps(content)
        with self._lock:
            before = self.asked[text]
            self.asked[text] += 1
            self.requests.append(body)
            self.keys.add(handler.headers.get("Authorization"))
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            if self._stopped:
                reply = Reply({}, fault="reset")
            elif handler.path != "/v1/chat/completions":
                reply = error(404, "no such page")
            elif body["model"] not in self.models:
                reply = error(404, f"no model {body['model']}")
            else:
                reply = self.respond(text, before)
        finally:
            # Before the answer leaves: the client may send its next request as soon as it has this one.
            with self._lock:
                self._now -= 1
        self._send(handler, reply)

    def _send(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        handler.close_connection = bool(reply.fault)
        if reply.fault == "hang":
            self.hold.wait(60)
            return
        if reply.fault == "reset":
            # Closing with this option sends RST instead of FIN.
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
            return
        data = (reply.body if isinstance(reply.body, str) else json.dumps(reply.body)).encode()
        handler.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2] if reply.fault == "truncate" else data)

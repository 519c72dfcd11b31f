"""Opens a run in the browser: metrics, the space of its vectors, before and after training, details.

reads   what the stages wrote below the run's folder; runs/<name>/03_model/ for vectors
writes  <run>/explorer_cache/*.safetensors    vectors and maps, so that they are computed once

The page is served to this machine only (http://127.0.0.1:8501) and nothing is sent anywhere. Ctrl-C ends it.

example python -m cardioembed.explorer --run runs/laptop
        python -m cardioembed.explorer --run runs/laptop --texts passages.jsonl --port 8600
"""

from __future__ import annotations

import argparse
import socket
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from cardioembed.errors import UserError
from cardioembed.explorer.options import add_options, checked

APP = Path(__file__).with_name("app.py")


def main(arguments: list[str] | None = None) -> int:
    """Checks the options and serves the page until it is ended."""
    parser = argparse.ArgumentParser(
        prog="python -m cardioembed.explorer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument("--port", type=int, default=8501, help="of the page (default: 8501)")
    parsed = parser.parse_args(arguments)
    try:
        checked(parsed)
        _check_packages()
        _check_port(parsed.port)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from streamlit.web import cli

    # The pages run in this process: what the first one needs is there before anybody waits for it.
    for name in ("cardioembed.explorer.views.metrics", "cardioembed.explorer.figures", "scipy.stats"):
        import_module(name)
    return cli.main(streamlit_arguments(parsed), prog_name="streamlit", standalone_mode=False) or 0


def streamlit_arguments(parsed: argparse.Namespace) -> list[str]:
    """Arguments of Streamlit; what is the same for every run stands in ``.streamlit/config.toml``.

    What keeps the texts on this machine stands here too: STREAMLIT_* in the environment would win over that file.
    """
    given = {"--run": parsed.run, "--texts": parsed.texts, "--cache": parsed.cache}
    own = [f"{name}={value}" for name, value in given.items() if value]
    private = ["--server.address=127.0.0.1", "--browser.gatherUsageStats=false"]
    return ["run", str(APP), *private, f"--server.port={parsed.port}", "--", *own]


def _check_packages() -> None:
    missing = [name for name in ("streamlit", "plotly") if not find_spec(name)]
    if missing:
        raise UserError(f"{' and '.join(missing)} not installed; in the project's folder: pip install -e '.[explorer]'")


def _check_port(port: int) -> None:
    if not 1 <= port <= 65535:
        raise UserError(f"--port {port} is not a port; give one from 1024 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(f"--port {port} cannot be used ({error.strerror}); give another, --port 8502") from None


if __name__ == "__main__":
    sys.exit(main())

"""Starting the viewer: a port on loopback, the address with its token, and the browser."""

from __future__ import annotations

import contextlib
import socket
import threading
import webbrowser
from collections.abc import Callable

import uvicorn

from neuronwise.errors import NeuronwiseError, reason
from neuronwise.view.app import make_app
from neuronwise.view.viewer import Viewer

HOST = "127.0.0.1"  # other machines reach it through a tunnel of their own: ssh -L 7860:localhost:7860
NAMES = frozenset({"127.0.0.1", "localhost"})
TRIED = 20  # ports, one after the other


def bound(port: int) -> socket.socket:
    """A listening socket on ``port`` or the next free one (any free one for 0); raises ``NeuronwiseError``."""
    problem: OSError | None = None
    for number in range(port, min(port + TRIED, 65536)) if port else [0]:
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((HOST, number))
            one.listen(128)
        except OSError as error:
            one.close()
            problem = error
        else:
            return one
    assert problem is not None
    raise NeuronwiseError(f"No port from {port} on can be opened: {reason(problem)}; choose another --port.")


def serve(viewer: Viewer, listening: socket.socket, *, ready: Callable[[str], None], browser: bool) -> None:
    """Serve until interrupted. ``ready`` is told the address; ``browser``: it is opened too."""
    port = listening.getsockname()[1]
    url = f"http://{HOST}:{port}/?token={viewer.token}"
    app = make_app(viewer, NAMES, cookie=f"neuronwise-{port}")
    settings = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=1, ws="none"
    )
    ready(url)
    if browser:
        threading.Timer(0.2, lambda: webbrowser.open(url)).start()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(settings).run(sockets=[listening])
    finally:
        viewer.worker.close()

"""The page as an application: it takes one photo, and refuses on the page what is none or too large.

The page loads nothing from anywhere: that stands in its header. Requests must name this machine, and
photos must come from the page itself: another site that is open in the same browser can neither read it nor use it.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import logging
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from solution.contracts import InputError
from solution.data.source import UnreadableImage
from solution.runtime import needed
from solution.serve.view import PAGE, SCRIPT, Panel, always, answered, too_large

if TYPE_CHECKING:
    from flask import Flask

EXTRA = "web"
_MOST_NAME = 200
_FORM_BYTES = 1 << 16
"""What a form takes besides its photo."""
_MOST_READ = 8
"""Up to so many times the limit is read before it is refused: a browser shows an answer only once all is sent."""
_AT_ONCE = 2
"""So many photos are computed or wait for that; one more gets the answer to try again."""
_THREADS = 4
_CONNECTIONS = 64
"""Of more, those that have waited longest without a whole request are closed."""
_REQUEST_SECONDS = 60
"""What sending a request may take."""

_SCRIPT_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'self'; "
    f"script-src 'sha256-{_SCRIPT_HASH}'; base-uri 'none'; frame-ancestors 'self'",
    "Referrer-Policy": "same-origin",  # with none, a browser does not mark the page's own form as such
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def application(panel: Panel, limit_bytes: int, host: str = "127.0.0.1") -> Flask:
    """The page at ``/``, for a server on `host`. `InputError` that names the extra when its library is missing."""
    with needed("the web page", EXTRA):
        from flask import Flask, request
        from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = limit_bytes + _FORM_BYTES

    template, constant = app.jinja_env.from_string(PAGE), always(panel, limit_bytes)
    free = threading.BoundedSemaphore(_AT_ONCE)

    def page(status: int = 200, **shown: Any) -> tuple[str, int]:
        return template.render(**constant, **shown), status

    @app.before_request
    def guard() -> tuple[str, int] | None:
        own = request.headers.get("Host", "")
        if not is_own(own, host):
            return f"this page answers to its own address alone, not to {own[:100]!r}\n", 400
        origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "none")
        if request.method == "POST" and not (is_same(origin, own) and site in ("same-origin", "none")):
            return "this page takes photos from itself alone, not from another site\n", 403
        return None

    @app.get("/")
    def empty() -> tuple[str, int]:
        return page()

    @app.post("/")
    def classified() -> Any:
        photo = request.files.get("photo")
        if photo is None or not photo.filename:
            return page(400, problem="No photo was sent: drop one, or choose a file.")
        data = photo.read()
        if len(data) > limit_bytes:
            return page(413, problem=too_large(limit_bytes))
        if not free.acquire(blocking=False):
            return *page(503, problem="Other photos are being classified: send this one again."), {"Retry-After": "2"}
        try:
            return page(**answered(panel, data, photo.filename[:_MOST_NAME]))
        except UnreadableImage as error:
            return page(415, problem=f"{error}.")
        except InputError as error:
            return page(500, problem=f"{error}.")
        finally:
            free.release()

    @app.errorhandler(RequestEntityTooLarge)
    def refused(_: RequestEntityTooLarge) -> tuple[str, int]:
        return page(413, problem=too_large(limit_bytes))

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Any:
        if isinstance(error, HTTPException):  # an address that is not there
            return f"{error.description}\n", error.code
        print(f"an error inside: {error!r}", file=sys.stderr, flush=True)
        return page(500, problem=f"This photo could not be classified ({type(error).__name__}): try another one.")

    app.after_request(_with_headers)
    return app


def is_own(name: str, host: str) -> bool:
    """Whether `name`, from the Host of a request, is an address of the server on `host`.

    Any other name may be one of a foreign site that was made to lead here, so that its scripts could read the page.
    """
    try:
        asked = urlsplit(f"//{name}")
        found, _ = asked.hostname or "", asked.port  # a port that is no number is a ValueError
    except ValueError:
        return False
    try:
        ipaddress.ip_address(found)
    except ValueError:
        return bool(name) and found in {"localhost", host.lower(), socket.gethostname().lower()}
    return True


def is_same(origin: str | None, own: str) -> bool:
    """Whether a request comes from the page itself, or from no page at all."""
    return origin is None or urlsplit(origin).netloc == own


def server(app: Flask, host: str, port: int, limit_bytes: int) -> Any:
    """What serves `app` to several browsers; ``run()`` it. `InputError` when the port is taken or not allowed."""
    with needed("the web page", EXTRA):
        import waitress
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it warns of each request that waits
    try:
        made = waitress.create_server(
            app,
            host=host,
            port=port,
            max_request_body_size=_MOST_READ * (limit_bytes + _FORM_BYTES),
            ident=None,
            threads=_THREADS,
            connection_limit=4 * _CONNECTIONS,
            channel_timeout=_REQUEST_SECONDS,
            cleanup_interval=5,
        )
    except (OSError, ValueError) as error:
        problem = f"cannot serve on {host}, port {port} ({error}): choose others with --host and --port"
        raise InputError(problem) from error
    for listening in [made, *getattr(made, "map", {}).values()]:  # a name may have several addresses
        if hasattr(listening, "channel_class"):
            listening.channel_class = _patient_channel()
    return made


def _patient_channel() -> type:
    """A connection that cannot be held open for long by sending little, or nothing, of a request."""
    from waitress.channel import HTTPChannel

    class Channel(HTTPChannel):
        begun: float | None = None

        def __init__(self, server: Any, *words: Any, **options: Any) -> None:
            super().__init__(server, *words, **options)
            waiting = [other for other in list(server.active_channels.values()) if not other.requests]
            for other in sorted(waiting, key=lambda other: other.creation_time)[:-_CONNECTIONS]:
                other.will_close = True

        def received(self, data: bytes) -> bool:
            more = super().received(data)
            self.begun = None if self.request is None else self.begun or time.time()
            if self.begun is not None:
                self.last_activity = self.begun
            return more

    return Channel


def _with_headers(response: Any) -> Any:
    response.headers.update(_HEADERS)
    return response

"""The page as an application: it takes one photo, refuses what is none or too large, and says so on the page.

No address but its own is ever asked: what the page may load stands in its header, and that is nothing.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

from solution.contracts import InputError
from solution.data.source import UnreadableImage
from solution.runtime import needed
from solution.serve.inference import Panel
from solution.serve.template import PAGE, SCRIPT
from solution.serve.view import always, answered, too_large

if TYPE_CHECKING:
    from flask import Flask

EXTRA = "web"
_FORM_BYTES = 1 << 16
"""What a form takes besides its photo."""
_MOST_READ = 8
"""Up to so many times the limit is read before it is refused: a browser shows an answer only once all is sent."""

_SCRIPT_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'self'; "
    f"script-src 'sha256-{_SCRIPT_HASH}'; base-uri 'none'; frame-ancestors 'self'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def application(panel: Panel, limit_bytes: int) -> Flask:
    """The page at ``/``. `InputError` that names the extra when its library is missing."""
    with needed("the web page", EXTRA):
        from flask import Flask, request
        from werkzeug.exceptions import RequestEntityTooLarge

    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = limit_bytes + _FORM_BYTES

    template, constant = app.jinja_env.from_string(PAGE), always(panel, limit_bytes)

    def page(status: int = 200, **shown: Any) -> tuple[str, int]:
        return template.render(**constant, **shown), status

    @app.get("/")
    def empty() -> tuple[str, int]:
        return page()

    @app.post("/")
    def asked() -> tuple[str, int]:
        photo = request.files.get("photo")
        if photo is None or not photo.filename:
            return page(400, problem="No photo was sent: drop one, or choose a file.")
        data = photo.read()
        if len(data) > limit_bytes:
            return page(413, problem=too_large(limit_bytes))
        try:
            return page(**answered(panel, data, photo.filename))
        except UnreadableImage as error:
            return page(415, problem=f"{error}.")
        except InputError as error:
            return page(500, problem=f"{error}.")

    @app.errorhandler(RequestEntityTooLarge)
    def refused(_: RequestEntityTooLarge) -> tuple[str, int]:
        return page(413, problem=too_large(limit_bytes))

    app.after_request(_with_headers)
    return app


def server(app: Flask, host: str, port: int, limit_bytes: int) -> Any:
    """What serves `app` to several browsers; ``run()`` it. `InputError` when the port is taken or not allowed."""
    with needed("the web page", EXTRA):
        import waitress
    try:
        most = _MOST_READ * (limit_bytes + _FORM_BYTES)
        return waitress.create_server(app, host=host, port=port, max_request_body_size=most, ident=None)
    except (OSError, ValueError) as error:
        said = f"cannot serve on {host}, port {port} ({error}): choose others with --host and --port"
        raise InputError(said) from error


def _with_headers(response: Any) -> Any:
    response.headers.update(_HEADERS)
    return response

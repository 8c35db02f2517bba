"""The routes of the web console: one page and its assets, closed to everything else.

The page holds no data and needs no key: it asks the public and the admin API with the key its
visitor types in.
"""

from pathlib import Path, PurePath
from typing import Any

ASSETS = Path(__file__).parent / "assets"

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "object-src 'none'",
        # Text of a server or a model can then never become markup, whatever the page's code does.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Not from the machine's table of types: browsers refuse modules that come as anything else.
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


def console_routes() -> list[Any]:
    """Starlette routes for `/console`, to append to an app's own.

    `/console` leads to `/console/`; below it GET and HEAD answer the files of the package, with 404
    for all else. The page itself is never stored by browsers, the rest is asked for again with its
    ETag, so that a new release of the server counts at once.
    """
    # Starlette comes with the server, not with this package's other users.
    from starlette.responses import RedirectResponse
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    class ConsoleFiles(StaticFiles):
        def file_response(self, full_path: Any, *args: Any, **kwargs: Any) -> Any:
            response = super().file_response(full_path, *args, **kwargs)
            suffix = PurePath(full_path).suffix
            response.headers.update(_HEADERS)
            response.headers["Content-Type"] = _MEDIA_TYPES[suffix]
            response.headers["Cache-Control"] = "no-store" if suffix == ".html" else "no-cache"
            return response

    async def to_folder(request: Any) -> RedirectResponse:
        # Relative, so that it holds behind a proxy that has a prefix or ends TLS.
        return RedirectResponse("console/", headers={"Cache-Control": "no-store"})

    return [
        Route("/console", to_folder, methods=["GET"], include_in_schema=False),
        Mount("/console", ConsoleFiles(directory=ASSETS, html=True), name="console"),
    ]

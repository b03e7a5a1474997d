"""Browser policy: security headers for every response, and the Content-Security-Policy of HTML pages.

The headers follow the OWASP REST Security Cheat Sheet. A response is normally data, so the default policy does
not let a browser load or run anything. The two HTML pages set their own policies.
"""

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Headers of every response; an HTML page replaces the Content-Security-Policy."""


def page_policy(**sources: str) -> str:
    """Return the Content-Security-Policy of an HTML page.

    The page may load resources from this server and from `sources`, for example `img_src="data:"`.
    """
    allowed = {"script-src": "'self'", "style-src": "'self'", "img-src": "'self'", "connect-src": "'self'"}
    for name, more in sources.items():
        allowed[name.replace("_", "-")] += f" {more}"
    lines = ["default-src 'none'", *(f"{name} {source}" for name, source in allowed.items())]
    return "; ".join([*lines, "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'"])

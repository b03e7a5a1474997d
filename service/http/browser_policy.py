"""Browser policy: the headers that say what a browser must not do with an answer, and the content policy of pages.

They follow the OWASP REST security cheat sheet. An answer is data, so by default a browser may load and run
nothing for it; the two pages bring policies of their own.
"""

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


def page_policy(**sources: str) -> str:
    """Make the Content-Security-Policy of a page: all from this server, plus `sources` (`img_src="data:"`)."""
    allowed = {"script-src": "'self'", "style-src": "'self'", "img-src": "'self'", "connect-src": "'self'"}
    for name, more in sources.items():
        allowed[name.replace("_", "-")] += f" {more}"
    lines = ["default-src 'none'", *(f"{name} {source}" for name, source in allowed.items())]
    return "; ".join([*lines, "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'"])

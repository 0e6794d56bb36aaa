"""Who may ask the server: what keeps pages of other sites, and other people, from reading the database through a browser.

Where only this machine reaches the server, the name by which it was asked must be one of this machine's (`localhost`, `127.0.0.1`, `[::1]`):
a page of another site can lead its own name to this machine, and its scripts could then read every answer. The port may be any, since tunnels
change it. Elsewhere names are not known, so whoever asks must have the token of the link that `cltdb dash` printed; its first use
sets a cookie. In both cases a request that writes and comes from a page of another site is refused.
"""

import hmac
import html
from ipaddress import ip_address
from urllib.parse import quote, urlencode, urlsplit

import flask

TOKEN = "token"
"""The field of the link, also the beginning of the cookie's name; its end is the port, since cookies do not know ports."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'self'; "
    "form-action 'self'; object-src 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # the link holds the token
}
REFUSAL = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Not let in · cltdb</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40em; margin: 4em auto; padding: 0 1em; color-scheme: light dark }}</style></head>
<body><main><h1>cltdb dash: found {found}</h1><p>Expected {expected}. To mend it: {do}.</p></main></body>
</html>
"""


def is_local(host):
    """True for a name or address that only this machine answers to."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_name(host):
    """The name in a Host header or an origin, without its port."""
    return (host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host).lower()


def guard(server, *, token=None, path="/"):
    """Has a Flask app refuse what the head of this module says. token: None where only this machine reaches the server; path: of the cookie."""

    @server.before_request
    def refuse_or_go_on():
        request = flask.request
        if token is None:
            if not is_local(host_name(request.host)):
                return _refused(
                    f"a request for {request.host}",
                    "one for localhost or 127.0.0.1, since it serves this machine alone",
                    "open the link that cltdb dash printed, or start it with --host to show the pages to other machines",
                )
        elif TOKEN in request.args:
            if _is(request.args[TOKEN], token):
                return _with_cookie(token, path)
            return _no_token("a link with another token")
        elif not _is(request.cookies.get(_cookie(), ""), token):
            return _no_token("a browser that has not opened its link")
        if request.method not in ("GET", "HEAD", "OPTIONS") and _is_foreign(request):
            return _refused(
                "a request from a page of another site", "one from its own pages", "use the pages of cltdb dash itself"
            )
        return None

    @server.after_request
    def with_headers(response):
        response.headers.update(HEADERS)
        return response


def _is(given, token):
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())


def _cookie():
    return f"cltdb-{TOKEN}-{flask.request.environ['SERVER_PORT']}"


def _with_cookie(token, path):
    """An answer that sets the cookie and leads to the same address without the token."""
    fields = [(name, value) for name, value in flask.request.args.items(multi=True) if name != TOKEN]
    url = path + quote(flask.request.path.lstrip("/"))
    response = flask.redirect(f"{url}?{urlencode(fields)}" if fields else url)
    response.set_cookie(_cookie(), token, httponly=True, samesite="Lax", path=path)
    return response


def _is_foreign(request):
    """True where a browser says that a page of another site asks. Behind a proxy the pages' own name is in X-Forwarded-Host."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site in ("cross-site", "same-site"):
        return True
    own = {request.host.lower(), request.headers.get("X-Forwarded-Host", request.host).lower()}
    return origin is not None and urlsplit(origin).netloc.lower() not in own and site != "same-origin"


def _no_token(found):
    return _refused(found, "the token that its link holds", "open the link that cltdb dash printed when it was started")


def _refused(found, expected, do):
    text = REFUSAL.format(found=html.escape(found), expected=html.escape(expected), do=html.escape(do))
    return flask.Response(text, status=403, content_type="text/html; charset=utf-8")

"""Pages are made ahead: the server begins with a page when it sends the document, while the browser still runs the scripts that will ask for it.

What was made is given once, to who asks for the same address within FRESH_S seconds; all else goes its usual way.
"""

import time
from concurrent.futures import Future
from threading import Lock, Thread

import flask

QUESTION = "/_dash-update-component"
ROUTER = ".._pages_content.children..._pages_store.data.."
"""Dash's name for the callback that gives a page."""
OUTPUTS = [{"id": "_pages_content", "property": "children"}, {"id": "_pages_store", "property": "data"}]
FRESH_S, N_KEPT = 10.0, 4
OURS = "cltdb.ahead"
"""In the environment of the questions that this module asks."""
SAME = ("SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "HTTP_HOST", "HTTP_COOKIE")


def install(server):
    """Has a Flask app make pages ahead. What refuses requests comes before, and sees the questions of this module too."""
    made, lock = {}, Lock()  # {(path, search) as the browser has them: (when it was begun, Future of a response)}

    def answer(promise, address, environ):
        try:
            with server.test_request_context(QUESTION, method="POST", json=_question(address), environ_overrides=environ):
                promise.set_result(server.full_dispatch_request())
        except Exception as error:  # the browser's own question will meet it again
            promise.set_exception(error)

    @server.after_request
    def begin(response):
        request = flask.request
        if (
            request.method == "GET"
            and response.status_code == 200
            and response.mimetype == "text/html"
            and "REQUEST_URI" in request.environ
        ):
            path, mark, query = request.environ["REQUEST_URI"].partition("?")
            environ = {OURS: True} | {name: request.environ[name] for name in SAME if name in request.environ}
            address, promise = (path, mark + query), Future()
            with lock:
                made[address] = (time.monotonic(), promise)
                while len(made) > N_KEPT:
                    made.pop(next(iter(made)))
            Thread(target=answer, args=(promise, address, environ), daemon=True).start()
        return response

    @server.before_request
    def give():
        request = flask.request
        body = request.get_json(silent=True) if request.path == QUESTION and OURS not in request.environ else None
        if not isinstance(body, dict) or body.get("output") != ROUTER:
            return None
        given = {one["property"]: one.get("value") or "" for one in body["inputs"]}
        with lock:
            begun, promise = made.pop((given["pathname"], given["search"]), (0, None))
        if promise is None or time.monotonic() - begun > FRESH_S or promise.exception() or promise.result().status_code != 200:
            return None
        return promise.result()


def _question(address):
    """What a browser asks for the page of an address."""
    inputs = [
        {"id": "_pages_location", "property": name, "value": value}
        for name, value in zip(("pathname", "search"), address, strict=True)
    ]
    return {
        "output": ROUTER,
        "outputs": OUTPUTS,
        "inputs": inputs,
        "changedPropIds": ["_pages_location.pathname", "_pages_location.search"],
    }

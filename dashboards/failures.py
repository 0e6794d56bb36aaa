"""No failure of a callback is invisible: the notice region of the shell (assets/notices.js) says what failed, in the form of our errors.

A callback that raises answers with what to say, and the page stays as it is; Dash would answer HTTP 500, which nobody sees. What never
reaches a callback, such as a server that is gone or a function of the browser that throws, assets/notices.js sees for itself.
"""

import logging
import time

from dash import Input, Output, callback_context, clientside_callback, dcc, html, set_props

from cltdb.errors import CltdbError

logger = logging.getLogger(__name__)
FAILURE, SHOWN = "app-failure", "app-failure-shown"


def region():
    """The components of the shell that carry a failure from the server to the notice region, which is outside of them."""
    return [dcc.Store(id=FAILURE), html.Div(id=SHOWN, hidden=True)]


def register():
    """The callback of `region`."""
    show = "failure => { if (failure) window.cltdb.notices.show(failure); return ''; }"
    clientside_callback(show, Output(SHOWN, "children"), Input(FAILURE, "data"), prevent_initial_call=True)


def report(error):
    """What Dash calls where a callback raises: sends the error to the notice region; the callback's outputs stay as they are."""
    said = as_error(error, doing=f"updating {', '.join(_outputs()) or 'the page'}")
    parts = {"where": said.where, "found": said.found, "expected": said.expected, "do": said.do}
    set_props(FAILURE, {"data": parts | {"at": time.time_ns()}})  # two failures are two, also where they say the same


def as_error(error, *, doing):
    """An exception as a `CltdbError`. One that only a bug can cause is logged with its traceback, and says so. doing: what it interrupted."""
    if isinstance(error, CltdbError):
        return error
    logger.error("%s failed", doing, exc_info=error)
    return CltdbError(
        doing,
        found=f"an error of cltdb itself ({type(error).__name__}: {error})",
        expected="none",
        do="load the page again; if that does not help, report what the terminal of cltdb dash shows",
    )


def _outputs():
    """The ids of what the current callback was to change."""
    outputs = callback_context.outputs_list
    found = []
    for output in outputs if isinstance(outputs, list) else [outputs]:
        for part in output if isinstance(output, list) else [output]:
            name = part["id"] if isinstance(part["id"], str) else part["id"].get("type", "a part of the page")
            found.append(str(name))
    return list(dict.fromkeys(found))

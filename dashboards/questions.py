"""What is asked on the SQL page: read from an address or a form, answered by a process of its own (answer.py) that can be ended.

A question that takes too long, takes too much memory or is no longer wanted ends with its process; the pages and the database go on.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import flask

from cltdb.database.named_queries import named_query, named_query_params
from cltdb.errors import CltdbError, shown_end
from dashboards import answer

TIMEOUT_S = 30
MAX_ASKED = 2
MAX_SQL_CHARS = 10_000
QUESTIONS = "CLTDB_QUESTIONS"
"""Where an app keeps its `Questions`: a key of `app.server.config`."""
STOP, FILES = "/sql/stop", "/sql/rows"
"""Addresses: what stops a question, and before `.csv` and `.parquet` what downloads a result."""
PARAMETER = "p."
"""Before the name of a parameter in an address."""
MIME = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}


class Question(NamedTuple):
    """One statement, with the values of its parameters by name."""

    sql: str
    params: dict


def question(fields, path):
    """The `Question` that the fields of an address ask of the database at `path`: `q` its SQL, or `query` the name of a named query and `p.NAME` its
    parameters. CltdbError where they ask none."""
    if fields.get("query"):
        query = named_query(fields["query"])
        given = {name.removeprefix(PARAMETER): value for name, value in fields.items() if name.startswith(PARAMETER)}
        return Question(query.sql, named_query_params(query, given, path))
    sql = fields.get("q") or ""
    if len(sql) > MAX_SQL_CHARS or "\0" in sql:
        raise CltdbError(
            "sql",
            found=f"a statement of {len(sql):,} characters" if "\0" not in sql else "a statement with a NUL",
            expected=f"text of at most {MAX_SQL_CHARS:,} characters",
            do="shorten it, or ask it with `cltdb sql`",
        )
    return Question(sql, {})


class Questions:
    """Asks questions to the database of an app, each in a process of its own; at most `MAX_ASKED` at once."""

    def __init__(self, database, *, timeout_s=TIMEOUT_S):
        self.database, self.timeout_s = database, timeout_s
        self._lock, self._places = threading.Lock(), threading.BoundedSemaphore(MAX_ASKED)
        self._spare, self._running, self._stopped = None, {}, set()

    def ask(self, asked, *, page=None, format="rows", output=None):
        """What `answer.answered` gives. page: who asks; its earlier question is stopped. CltdbError for what goes wrong."""
        self.stop(page)
        if not self._places.acquire(timeout=1):
            expected, do = f"at most {MAX_ASKED} at once", "wait for one to end, or stop one"
            raise CltdbError("sql", found=f"{MAX_ASKED} questions that are being answered", expected=expected, do=do)
        try:
            return self._answer(asked, page or object(), format, output)
        finally:
            self._places.release()

    def _answer(self, asked, page, format, output):
        request = {"database": str(self.database), **asked._asdict(), "timeout_s": self.timeout_s}
        line = json.dumps(request | {"format": format, "output": output}) + "\n"
        with self._lock:
            process, self._spare = self._ready(), None
            self._running[page] = process
        try:
            out, _ = process.communicate(line.encode(), timeout=self.timeout_s + answer.BUSY_S + 2 * answer.GRACE_S)
        except subprocess.TimeoutExpired:
            out = b""
        finally:
            process.kill()
            status = process.wait()
            with self._lock:
                if self._running.get(page) is process:
                    del self._running[page]
                was_stopped = process in self._stopped
                self._stopped.discard(process)
        self.prepare()
        found = json.loads(out) if status == 0 and out else {"error": _ended(status, was_stopped, self.timeout_s)}
        if "error" in found:
            raise CltdbError(found["error"].pop("where"), **found["error"])
        return found

    def stop(self, page):
        """Ends the question that a page asked, where it has not ended yet."""
        with self._lock:
            if process := self._running.pop(page, None):
                self._stopped.add(process)
                process.kill()

    def prepare(self):
        """Has a process wait for the next question, which is then answered the sooner."""
        with self._lock:
            self._spare = self._ready()

    def close(self):
        """Ends every process."""
        with self._lock:
            for process in (*self._running.values(), *filter(None, [self._spare])):
                process.kill()
                process.wait()
                with suppress(OSError):
                    process.stdin.close()
            self._spare = None

    def _ready(self):
        """A process that waits for a question."""
        if self._spare is not None and self._spare.poll() is None:
            return self._spare
        package = str(Path(__file__).parents[1])
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))}
        return subprocess.Popen(
            [sys.executable, "-P", "-m", answer.__name__],  # -P: modules in the project's folder are not meant
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is the server's
        )


def _ended(status, was_stopped, timeout_s):
    """The parts of the error for a process that ended without an answer."""
    where = {"where": "sql"}
    if was_stopped:
        return where | {"found": "a question that was stopped", "expected": "an answer", "do": "ask again"}
    if status in (-signal.SIGALRM, -signal.SIGKILL):
        found = f"a query that took longer than {timeout_s:g} s, or more memory than there is"
        return where | {"found": found, "expected": "a shorter one", "do": "restrict it, or ask it with `cltdb sql`"}
    found = f"a query that ended its process ({shown_end(status)})"
    return where | {
        "found": found,
        "expected": "one that takes less",
        "do": "restrict it, for example to one dictionary and layer",
    }


def here():
    """The `Questions` of the app that answers."""
    return flask.current_app.config[QUESTIONS]


@contextmanager
def result_file(asked, format):
    """The path of a file with all rows of a question, while the block runs."""
    with tempfile.TemporaryDirectory(prefix="cltdb-sql-") as folder:
        path = os.path.join(folder, f"rows.{format}")
        here().ask(asked, format=format, output=path)
        yield path


ROUTES = flask.Blueprint("sql", __name__)


@ROUTES.post(STOP)
def stop():
    """Stops the question of the page that is named in the body: it was left."""
    here().stop(flask.request.get_data(as_text=True)[:100])
    return "", 204


@ROUTES.get(f"{FILES}.<format>")
def download(format):
    """The whole result of the question in the address as a file; what is wrong as one line of text."""
    if format not in MIME:
        flask.abort(404)
    if flask.request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        flask.abort(403)
    try:
        with result_file(question(flask.request.args.to_dict(), here().database), format) as path:
            stream = open(path, "rb")  # noqa: SIM115 (the answer closes it; the file has lost its name by then)
    except CltdbError as error:
        return flask.Response(f"{error}\n", 400, mimetype="text/plain")
    name = flask.request.args.get("query") or "rows"  # a named query's, by now
    size = os.fstat(stream.fileno()).st_size
    headers = {"Content-Disposition": f'attachment; filename="{name}.{format}"', "Content-Length": size}
    return flask.Response(_pieces(stream), mimetype=MIME[format], headers=headers)


def _pieces(stream):
    with stream:
        while piece := stream.read(1 << 20):
            yield piece


def files_of(fields):
    """{format: path of the app} of the downloads of what `fields` ask."""
    return {format: f"{FILES}.{format}?{urlencode(fields)}" for format in MIME}


def install(server, database):
    """Gives the server of an app what its SQL page asks with."""
    server.config[QUESTIONS] = Questions(database)
    server.register_blueprint(ROUTES)

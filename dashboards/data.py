"""Named queries to Polars frames; one short read-only connection per call, or per `session`. Numbers are never formatted here.

Every connection waits for its place in line (`cltdb.database.store`): while another process writes, for a minute at most.
"""

from contextlib import contextmanager

from flask import current_app, g

from cltdb.database import Database, one_feature
from cltdb.database.search import without_neighbours

DATABASE = "CLTDB_DATABASE"
"""Where an app keeps the path of its database: a key of `app.server.config`."""


@contextmanager
def session(*, threads=None):
    """Within the block everything is asked over one connection: of a page that asks several questions. threads: as of `Database.session`."""
    before = g.get("session")
    with asked().session(threads=threads) as g.session:
        try:
            yield
        finally:
            g.session = before


def query(name, /, **params):
    """The rows of the named query `name`, of the database of the app that answers."""
    return asked().query(name, **params)


def search(text, **chosen):
    """The features that have to do with a text, as `cltdb search` finds them."""
    return asked().search(text, **chosen)


def strongest_windows(dict_id, places):
    """{(layer, feature): rows of feature_contexts, those of band top} of features of a dictionary."""
    return one_feature.strongest_windows(asked(), dict_id=dict_id, places=places)


def lacks_neighbours(dict_id):
    """Whether a search of a dictionary knows no neighbours in meaning, since an earlier cltdb made its words."""
    return without_neighbours(asked(), dict_id)


def asked():
    """The `Database` of the app that answers; within a `session` over its connection."""
    return g.get("session") or Database(current_app.config[DATABASE])

"""What the server gives of features beside their pages: one that chance chooses, and one as JSON."""

import flask

from cltdb.errors import CltdbError
from cltdb.interchange.feature_json import feature_pages
from dashboards import data
from dashboards.urls import FEATURE_JSON, RANDOM, feature_url, search_url

ROUTES = flask.Blueprint("features", __name__)
CHOSEN = "SELECT layer, feature FROM (FROM features WHERE dict_id = ? AND NOT dead) USING SAMPLE 1 ROWS"


@ROUTES.get(RANDOM)
def random_feature():
    """Leads to the page of a live feature of a dictionary, each as likely as the others; where there is none, to the table of features."""
    dict_id = flask.request.args.get("dict_id", "")
    chosen = data.asked().sql(CHOSEN, [dict_id]).rows()
    response = flask.redirect(feature_url(dict_id, *chosen[0]) if chosen else search_url(dict_id=dict_id))
    response.headers["Cache-Control"] = "no-store"
    return response


@ROUTES.get(f"{FEATURE_JSON}/<dict_id>/<int:layer>/<int:feature>.json")
def feature_json(dict_id, layer, feature):
    """A feature as `cltdb export feature-json` writes it."""
    pages = feature_pages(flask.current_app.config[data.DATABASE], dict_id, layer, [feature])
    if not pages:
        return flask.Response(f"There is no feature {layer}:{feature} of dictionary {dict_id}.", 404, mimetype="text/plain")
    response = flask.Response(flask.json.dumps(pages[0], ensure_ascii=False, allow_nan=False), mimetype="application/json")
    response.headers["Content-Disposition"] = f'attachment; filename="{layer}-{feature}.json"'
    return response


@ROUTES.errorhandler(CltdbError)
def refused(error):
    """What cannot be answered, such as of a database that cannot be read."""
    return flask.Response(str(error), 400, mimetype="text/plain")

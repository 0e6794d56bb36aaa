"""What may be started from the browser: a table of kinds, each with a function from fields to a `jobs.Request`.

Fields come from a form or a panel and are looked at here: numbers are numbers, names are of the database, texts reach the command as one
argument of the form `--option=text`, and no shell. A spec is one of the database, or a file of the project's folder that is listed here.
"""

import json

import polars as pl

from cltdb.errors import CltdbError, shown
from dashboards import data
from dashboards.jobs import ALIVE, Request, here
from dashboards.urls import OVERVIEW, address, feature_url, graph_url, search_url

MODES = ("constrained", "iterative", "free", "frozen_attention")
OPERATIONS = ("set", "scale")
MAX_GENERATED, MAX_SETTINGS = 200, 1000
MAX_SPEC_BYTES, PROJECT_FILE = 1_000_000, "cltdb.yaml"


def attribute(*, prompt, dict_id, target=None, foil=None, node_threshold=None, edge_threshold=None, max_features=None):
    """The graph of a prompt."""
    fields = {name: value for name, value in locals().items() if value not in (None, "")}
    options = [f"--prompt={_prompt(prompt)}", "--json"]
    options += [f"--{name}={token}" for name, token in (("target", target), ("foil", foil)) if _text(name, token)]
    sets = {
        "node_threshold": _number("nodes", node_threshold, 0, 1),
        "edge_threshold": _number("edges", edge_threshold, 0, 1),
        "max_features": _number("features", max_features, 1, 10**9, whole=True),
    }
    options += [f"--set=attribute.{key}={value!r}" for key, value in sets.items() if value is not None]
    return Request("attribute", fields, "attribute", _spec_of(dict_id), tuple(options), prompt)


def intervene(*, settings, mode="constrained", generate=0, graph_id=None, dict_id=None, prompt=None):
    """An intervention on the prompt of a graph, or without one on `prompt` by a dictionary, for which no graph is made that would predict it.
    settings: [[layer, feature, position or None for all, operation, value]]."""
    if mode not in MODES:
        raise CltdbError("mode", found=shown(mode), expected=f"one of {', '.join(MODES)}", do="choose one")
    if not isinstance(settings, list) or not 1 <= len(settings) <= MAX_SETTINGS:
        found, do = f"{len(settings or [])} features", "select or pin a feature"
        raise CltdbError("steering", found=found, expected=f"1 to {MAX_SETTINGS:,} features to set", do=do)
    generate = _number("tokens to continue by", generate, 0, MAX_GENERATED, whole=True) or 0
    given = [_setting(*setting) for setting in settings]
    if dict_id is None:
        graph = data.query("graph_list").filter(pl.col("graph_id") == (graph_id or ""))
        if graph.is_empty():
            raise CltdbError("graph", found=shown(graph_id), expected="a graph of this database", do="choose one")
        about, of_dictionary, on = {"graph_id": graph_id}, graph["dict_id"][0], graph["prompt"][0] or graph_id
        options = [f"--graph={graph_id}"]
    else:
        about, of_dictionary, on = {"dict_id": dict_id, "prompt": _prompt(prompt)}, dict_id, prompt
        options = [f"--prompt={prompt}", "--no-prediction"]
    options += [f"--mode={mode}", f"--generate={generate}", "--json", *(f"--feature={one}" for one in given)]
    fields = {**about, "settings": settings, "mode": mode, "generate": generate}
    title = f"{', '.join(given[:3])}{' …' if len(given) > 3 else ''} in {on}"
    return Request("intervene", fields, "intervene", _spec_of(of_dictionary), tuple(options), title)


def explain(*, dict_id, where=None, limit=None, estimate=False):
    """Explanations of the features that a condition chooses; `estimate`: what they would cost, asking nobody."""
    limit = _number("at most", limit, 1, 10**7, whole=True)
    options = [f"--where={where}"] if _text("where", where) else []
    options += [f"--limit={limit}"] if limit else []
    fields = {"dict_id": dict_id, "where": where, "limit": limit}
    title = f"explain {where or 'features'} of {dict_id}"
    if estimate:
        return Request("estimate", fields, "explain", _spec_of(dict_id), (*options, "--dry-run"), f"estimate: {title}")
    return Request("explain", fields, "explain", _spec_of(dict_id), tuple(options), title, told=True)


def run(*, spec, sets=(), plan=False):
    """A run of a spec, or its resumption: what is finished stays. spec: a name of `specs`, or `dictionary:DICT_ID`; sets: KEY=VALUE texts;
    `plan`: say what would run."""
    text = _spec_of(spec.removeprefix("dictionary:")) if _text("spec", spec).startswith("dictionary:") else _listed(spec)
    wrong = [one for one in sets if "=" not in _text("settings", one)]
    if wrong:
        raise CltdbError("settings", found=shown(wrong[0]), expected="KEY=VALUE, one a line", do="mend the line")
    title = " ".join([f"run {spec.partition(':')[2]}", *(f"with {one}" for one in sets)])
    fields, options = {"spec": spec, "sets": list(sets)}, tuple(f"--set={one}" for one in sets)
    if plan:
        return Request("plan", fields, "plan", text, options, f"plan: {title}")
    return Request("run", fields, "run", text, options, title, told=True)


def encode(*, dict_id, layer, feature, text):
    """Where a feature fires on a text."""
    if not _text("text", text).strip():
        raise CltdbError("text", found="no text", expected="a word or more", do="write one")
    _check_feature(layer, feature)
    fields = {"dict_id": dict_id, "layer": layer, "feature": feature, "text": text}
    options = (f"--text={text}", f"--feature={layer}:{feature}", "--json")
    return Request("encode", fields, "encode", _spec_of(dict_id), options, f"{layer}:{feature} on {text}")


def judged(*, dict_id, layer, feature):
    """Which windows the judges of a feature's explanations judged right."""
    _check_feature(layer, feature)
    fields = {"dict_id": dict_id, "layer": layer, "feature": feature}
    options = (f"--feature={layer}:{feature}", "--json")
    return Request("judged", fields, "judged", _spec_of(dict_id), options, f"examples judged of {layer}:{feature}")


def _check_feature(layer, feature):
    if not all(isinstance(place, int) and 0 <= place < 2**31 for place in (layer, feature)):
        raise CltdbError("feature", found=shown([layer, feature]), expected="a feature", do="load the page again")


KINDS = {
    "attribute": attribute,
    "intervene": intervene,
    "estimate": lambda **fields: explain(**fields, estimate=True),
    "explain": explain,
    "plan": lambda **fields: run(**fields, plan=True),
    "run": run,
    "encode": encode,
    "judged": judged,
}
"""{kind of a job: the function that makes its request from fields}."""
FOLLOWED_BY = {"plan": ("Run it", "run"), "estimate": ("Explain them", "explain")}
"""What a finished job of a kind offers to start with the same fields: (text of the button, kind)."""


def request(kind, fields):
    """The `Request` of a kind with these fields; CltdbError where they are not what it takes."""
    try:
        return KINDS[kind](**fields)
    except (KeyError, TypeError) as error:
        raise CltdbError("jobs", found=shown(kind), expected="what the forms ask for", do="load the page again") from error


def next_step(job):
    """(text, kind) of what a job that ended offers to start with its fields; None where there is nothing."""
    if job.status in ALIVE or job.kind not in KINDS or not job.fields:
        return None
    return FOLLOWED_BY.get(job.kind) if job.status == "finished" else ("Go on" if job.kind == "run" else "Start again", job.kind)


def made(job):
    """What a finished job made: [(text, address)]."""
    if job.status != "finished":
        return []
    graph_id = job.fields.get("graph_id") if job.kind == "intervene" else _printed(job).get("graph_id")
    if graph_id and job.kind in ("attribute", "intervene"):
        return [("See the graph" if job.kind == "attribute" else "See what it did", graph_url(graph_id))]
    if job.kind == "intervene":
        return [("See what it did", feature_url(job.fields["dict_id"], *job.fields["settings"][0][:2]))]
    if job.kind == "explain":
        return [("See the features", search_url(dict_id=job.fields.get("dict_id", "")))]
    return [("See what there is now", address(OVERVIEW))] if job.kind == "run" else []


def specs(root):
    """{name: text} of the specs that can be run: of the database, newest first, and of the files of the project's folder `root`."""
    rows = data.query("page_runnable").rows(named=True)
    found = {f"database:{row['experiment']} ({row['spec_hash'][:8]})": row["spec_yaml"] for row in rows}
    for path in sorted({*root.glob("*.yaml"), *root.glob("experiments/*.yaml"), *root.glob("experiments/*/*.yaml")}):
        if path.name != PROJECT_FILE and path.is_file() and path.stat().st_size <= MAX_SPEC_BYTES:
            found[f"file:{path.relative_to(root)}"] = path.read_text(encoding="utf-8", errors="replace")
    return found


def _listed(name):
    work = here()
    text = specs(work.root).get(name) if work else None
    if text is None:
        do = "choose one"
        raise CltdbError("spec", found=shown(name), expected="a spec of the database or of the project's folder", do=do)
    return text


def _spec_of(dict_id):
    """The text of the spec that made a dictionary."""
    rows = data.query("page_specs", dict_id=_text("dictionary", dict_id))
    if rows.is_empty():
        raise CltdbError(
            "dictionary", found=f"no spec of {dict_id}", expected="a dictionary that this project made", do="choose one"
        )
    return rows["spec_yaml"][0]


def _prompt(value):
    """`value` where it is a text of more than spaces."""
    if not _text("prompt", value).strip():
        raise CltdbError("prompt", found="no text", expected="a prompt", do="write one")
    return value


def _text(what, value):
    """`value` where it is a text, "" for None."""
    if not isinstance(value, str | None):
        raise CltdbError(what, found=shown(value), expected="text", do="load the page again")
    return value or ""


def _number(what, value, low, high, *, whole=False):
    """`value` as a number from `low` to `high`; None where there is none."""
    if value in (None, ""):
        return None
    kind = int if whole else float
    fits = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high and kind(value) == value
    if not fits:
        expected = f"a {'whole ' if whole else ''}number from {low:,} to {high:,}"
        raise CltdbError(what, found=shown(value), expected=expected, do="write another")
    return kind(value)


def _setting(layer, feature, position, operation, value):
    """A setting as the command line writes it: LAYER:FEATURE@POSITION=VALUE, the position from the end where it is negative."""
    places = (layer, feature, *([] if position is None else [position]))
    is_whole = all(isinstance(place, int) and not isinstance(place, bool) and abs(place) < 2**31 for place in places)
    if not is_whole or min(layer, feature) < 0 or operation not in OPERATIONS:
        raise CltdbError(
            "steering", found=shown([layer, feature, position, operation]), expected="a feature", do="select it again"
        )
    value = _number("value", value, -1e30, 1e30)
    if value is None:
        raise CltdbError("value", found="none", expected="a number", do="write one")
    return f"{layer}:{feature}@{'*' if position is None else position}={'x' * (operation == 'scale')}{value:.15g}"


def _printed(job):
    """The JSON object that a job printed; {} where it printed another thing."""
    try:
        found = json.loads(job.output)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}

"""`cltdb match`: which features of two dictionaries are the same."""

import logging

from cltdb import output
from cltdb.commands.common import Command, option_named, run_into_database, this_project
from cltdb.errors import CltdbError

WHERE = "cltdb match"
BY = {"decoder": "cosine of decoders", "activations": "correlation of activations"}
logger = logging.getLogger(__name__)


def add_options(parser):
    for name, which in (("first", "first"), ("second", "second")):
        about = f"the {which} dictionary: its dict_id, an experiment whose training is finished, or a folder with dictionary.json"
        parser.add_argument(name, metavar="DICT", help=about)
    parser.add_argument(
        "--by",
        choices=["decoder", "activations"],
        help="how pairs are chosen: by cosine of decoders or correlation of activations (default: decoder where both are of one model)",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="similarity above which two features are the same, in what became of each (default 0.7); shares are above 0.7 and 0.9 whatever it is",
    )
    parser.add_argument(
        "--tokens", type=int, metavar="N", help="tokens of held-out text to correlate activations on (default 32768)"
    )
    parser.add_argument(
        "--no-correlation",
        action="store_true",
        help="read no text: correlations of activations stay unknown where decoders are matched",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def match_command(options):
    with option_named({r"(?:match\.)?(by|threshold|tokens)\b": r"--\1"}):
        _match(options)


def _match(options):
    from cltdb.database.artifacts import bring_in
    from cltdb.match.folders import match_folders
    from cltdb.train.start import start_folder

    project = this_project()
    folders = [start_folder(name, project, where=WHERE) for name in (options.first, options.second)]
    section, before = _section(options), _held(project)
    settings = _settings(section)
    if loaded := _experiment_of(folders[1], project, section | {"against": str(folders[0].absolute())}):
        directory = run_into_database(loaded, "match")
    else:
        for_text = {"by": options.by == "activations", "tokens": options.tokens is not None}
        if asked := [name for name, is_asked in for_text.items() if is_asked]:
            found, expected = "a folder as the second dictionary", "one of this project, whose spec says which text to read"
            raise CltdbError(f"--{asked[0]}", found=found, expected=expected, do="name another, or leave the option out")
        key, directory = match_folders(folders, settings.model_copy(update={"correlation": False}), project)
        bring_in(project, (key, directory))
    _bring_forward(project, directory)
    dict_a, dict_b = _say(options, directory)
    key, how = before.get((dict_a, dict_b), (directory.name, None))
    if key != directory.name:
        place = "in the database this takes the place of another comparison of the two"
        logger.warning("%s, by %s; `cltdb match` with the options of that one brings it back at once", place, BY[how])


def _held(project):
    """{(dict_a, dict_b): (key of the artifact, matched_by)} of the comparisons in the database, of which it holds one for two dictionaries; {} where there
    is none yet that can be read."""
    from cltdb.database import api

    try:
        rows = (
            api.open(project.database)
            .sql("SELECT DISTINCT dict_a, dict_b, artifact_key, matched_by FROM dictionary_matches")
            .rows()
        )
    except CltdbError:  # what comes next makes it, brings it up to date or says what is wrong
        return {}
    return {(dict_a, dict_b): (key, matched_by) for dict_a, dict_b, key, matched_by in rows}


def _section(options):
    """Section `match` as the options give it."""
    for name, is_given in {"tokens": options.tokens is not None, "by": options.by == "activations"}.items():
        if options.no_correlation and is_given:
            found, expected = "--no-correlation beside it", "text that is read"
            raise CltdbError(f"--{name}", found=found, expected=expected, do="leave one of the two out")
    given = {"by": options.by, "threshold": options.threshold, "tokens": options.tokens}
    return {name: value for name, value in given.items() if value is not None} | (
        {"correlation": False} if options.no_correlation else {}
    )


def _settings(section):
    """The `Match` of a section that options give."""
    from pydantic import ValidationError

    from cltdb.engine.spec_errors import spec_error
    from cltdb.match.settings import Match

    try:
        return Match(**section)
    except ValidationError as error:
        raise spec_error(error, Match, place=lambda path: WHERE) from None


def _experiment_of(folder, project, section):
    """The experiment that has made the dictionary in a folder, with this section `match`; None of a folder that no experiment of this project has made, and
    without correlations of one whose spec no longer makes it."""
    from cltdb.engine.plan import plan
    from cltdb.engine.workspace import Workspace
    from cltdb.spec import load_recorded

    workspace = Workspace(project.workspace)
    if folder.parent.absolute() != (workspace.root / "train").absolute():
        return None
    runs = sorted(
        (run for run in workspace.runs_of("train", folder.name) if run["status"] == "done"), key=lambda run: run["started_at"]
    )
    records = {(record["experiment"], record["spec_hash"]): record for record in workspace.experiment_records()}
    known = [records[name] for run in runs if (name := (run["experiment"], run["spec_hash"])) in records]
    if not known:
        return None
    loaded = load_recorded(known[0], {("match",): section}, project=project)
    [made] = [item for item in plan(loaded) if item.stage == "train"]
    if made.key != folder.name or made.action != "cached":
        if section.get("correlation") is False:
            return None
        found = f"a spec of {loaded.experiment.name} that no longer makes this dictionary"
        expected, do = "the model, text and cltdb of before, to read the same text", "compare weights alone with --no-correlation"
        raise CltdbError(WHERE, found=found, expected=expected, do=do)
    return loaded


def _bring_forward(project, directory):
    """Has the database hold the comparison in an artifact, where it holds another of the same two dictionaries, that was made later."""
    from cltdb.database import api
    from cltdb.database.artifacts import bring_in
    from cltdb.engine.workspace import Workspace

    held = api.open(project.database).sql("FROM dictionary_matches WHERE artifact_key = ? LIMIT 1", [directory.name])
    if held.is_empty():
        Workspace(project.workspace).ask_again(directory.parent.name, directory.name)
        bring_in(project, (directory.name, directory))


def _say(options, directory):
    """Prints the shares of each layer of the comparison in an artifact, or all that was summed up as JSON; returns the two dict_ids."""
    from cltdb.database.artifacts import asked_alone

    rows = asked_alone(directory, "match_shares").to_dicts()  # the database may hold another comparison of the two by now
    names = rows[0]["dict_a"], rows[0]["dict_b"]
    if options.json:
        output.say(output.json_text(rows))
        return names
    output.say(
        f"{names[0]} and {names[1]}, by {BY[rows[0]['matched_by']]}; of the first one's features those matched",
        "  layer  above 0.7  by chance  above 0.9  by chance  split  merged  appeared  vanished",
    )
    for row in rows:
        layer = "all" if row["layer"] is None else row["layer"]
        shown = (f"{row[name]:>9.1%}" for name in ("share", "by_chance", "share_strict", "by_chance_strict"))
        counts = (row[f"n_{name}"] for name in ("split", "merged", "appeared", "vanished"))
        output.say(
            f"  {layer:>5}  {'  '.join(shown)}  {'  '.join(f'{n or 0:>{w}}' for n, w in zip(counts, (5, 6, 8, 8), strict=True))}"
        )
    output.say(f"the features: cltdb sql --query match_changes -p dict_a={names[0]} -p dict_b={names[1]} (also match_splits)")
    return names


COMMAND = Command(
    "match the features of two dictionaries one to one: what stayed, appeared, vanished, split and merged",
    "cltdb match quickstart-clt-9e0e491d other-clt-0123abcd",
    add_options,
    match_command,
)

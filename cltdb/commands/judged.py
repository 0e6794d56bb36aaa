"""`cltdb judged`: which windows the scores of a feature's explanations come from, and how each was judged."""

import re

from cltdb import output
from cltdb.commands.common import Command, add_spec, load_spec
from cltdb.commands.explain import harvested, job_of_explain
from cltdb.errors import CltdbError, escaped

FEATURE = re.compile(r"(\d{1,9}):(\d{1,9})")
OF_FEATURE = "WHERE dict_id = $dict_id AND layer = $layer AND feature = $feature"
EXPLANATIONS = f"SELECT side, explainer, text, rule FROM explanations {OF_FEATURE}"
SCORES = f"SELECT side, explainer, scorer, n, n_failed, judge, detail FROM scores {OF_FEATURE} ORDER BY ALL"


def add_options(parser):
    add_spec(parser)
    parser.add_argument("--feature", required=True, metavar="LAYER:FEATURE", help="the feature whose explanations were scored")
    parser.add_argument("--json", action="store_true", help="print JSON")


def judged_command(options):
    given = FEATURE.fullmatch(options.feature.strip())
    if not given:
        raise CltdbError("--feature", found=repr(options.feature), expected="LAYER:FEATURE, for example 3:120", do="mend it")
    loaded, place = load_spec(options), (int(given[1]), int(given[2]))

    from cltdb.database import api
    from cltdb.explain.stage import judged_again
    from cltdb.train.trained import dict_id

    key = {"dict_id": dict_id(harvested(loaded, options.spec)["train"]), "layer": place[0], "feature": place[1]}
    db = api.open(loaded.project.database)
    explanations, scores = (db.sql(sql, key).to_dicts() for sql in (EXPLANATIONS, SCORES))
    if not scores:
        found = f"no score of feature {place[0]}:{place[1]} of {key['dict_id']}"
        raise CltdbError(
            "--feature", found=found, expected="a feature whose explanations were scored", do="cltdb explain SPEC --where SQL"
        )
    found = judged_again(job_of_explain(loaded), *place, explanations, scores)
    output.say(output.json_text({**key, **found}) if options.json else "\n".join(_lines(found)))


def _lines(found):
    """Of each score how many windows were judged right; below it those that were judged wrong."""
    for score in found["scores"]:
        head = f"{score['scorer']} of {score['explainer']}"
        if score["answers"] is None:
            yield f"{head}: {score['why']}"
            continue
        windows = found["windows"][score["scorer"]]
        pairs = [(one, answer, is_right(one, answer)) for one, answer in zip(windows, score["answers"], strict=True)]
        yield f"{head}: {sum(right is True for *_, right in pairs)} of {len(pairs)} right"
        for one, answer, right in pairs:
            if right is not True:
                said = "no answer" if answer is None else "said yes" if answer else "said no"
                yield f"  {said}, {one['kind']}: {escaped(' '.join(one['strings']))}"


def is_right(window, answer):
    """Whether the answer to a window is right; None where there is none."""
    return None if answer is None else answer == (window["kind"] == "positive")


COMMAND = Command(
    "print which windows the judges of a feature's explanations judged right and wrong",
    "cltdb judged experiments/quickstart.yaml --feature 2:126",
    add_options,
    judged_command,
)

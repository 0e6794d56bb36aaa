"""`cltdb plan`: what would run, and why."""

import json

from cltdb.commands.common import Command, add_spec, load_points


def add_options(parser):
    add_spec(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--measure",
        action="store_true",
        help="also load the model and measure whether reading a cache back is faster than computing it again",
    )


def plan_command(options):
    from cltdb.engine import run as runner

    plans = runner.plan_points(load_points(options))
    for loaded, planned in plans:
        runner.check(loaded, [item for item in planned if item.stage == "activations" or item.action == "cached"])
        for item in planned:
            runner.check_launch(item.stage, loaded)
    records = runner.records_in_order(plans[0][0].project)
    facts, durations = (
        _estimates(plans, measure=options.measure),
        [runner.durations(loaded, planned, records) for loaded, planned in plans],
    )
    if options.json:
        print(
            json.dumps(
                [
                    ({"point": loaded.experiment.name} if len(plans) > 1 else {})
                    | {"stage": item.stage, "action": item.action, "reason": item.reason, "key": item.key or None}
                    | (facts[item.key].keys() if item.key in facts else {})
                    | ({"seconds": round(times[item.stage].seconds, 1)} if item.stage in times else {})
                    for (loaded, planned), times in zip(plans, durations, strict=True)
                    for item in planned
                ],
                indent=1,
            )
        )
        return
    for (loaded, planned), times in zip(plans, durations, strict=True):
        if len(plans) > 1:
            print(f"# {loaded.experiment.name}")
        for item in planned:
            notes = [facts[item.key].text] if item.key in facts and item.action == "run" else []
            notes += [times[item.stage].text] if item.stage in times else []
            print("\t".join([item.stage, item.action, "; ".join([item.reason, *notes])]))


def _estimates(plans, *, measure):
    """{key: Estimate} of every cache that would be written, where the model is on this machine."""
    from cltdb.stages import cache_estimate

    found = {
        item.key: cache_estimate(loaded.experiment, loaded.project, measure=measure)
        for loaded, planned in plans
        for item in planned
        if item.stage == "activations" and item.action == "run"
    }
    return {key: estimate for key, estimate in found.items() if estimate is not None}


COMMAND = Command("say what would run, and why", "cltdb plan experiments/quickstart.yaml", add_options, plan_command)

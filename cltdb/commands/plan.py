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
    from cltdb.engine import plan
    from cltdb.engine.records import records_in_order

    plans, facts = plan.plan_points(load_points(options)), {}
    for loaded, planned in plans:
        with plan.of_point(loaded):
            plan.check_plan(loaded, planned)
    for loaded, planned in plans:
        facts |= plan.estimates(loaded, planned, measure=options.measure)
    records = records_in_order(plans[0][0].project)
    times = [plan.times(loaded, planned, records) for loaded, planned in plans]
    if options.json:
        print(
            json.dumps(
                [
                    ({"point": loaded.experiment.name} if len(plans) > 1 else {})
                    | {"stage": item.stage, "action": item.action, "reason": item.reason, "key": item.key or None}
                    | (facts[item.key].keys() if item.key in facts else {})
                    | ({"seconds": round(took[item.stage].seconds, 1)} if item.stage in took else {})
                    for (loaded, planned), took in zip(plans, times, strict=True)
                    for item in planned
                ],
                indent=1,
            )
        )
        return
    for (loaded, planned), took in zip(plans, times, strict=True):
        if len(plans) > 1:
            print(f"# {loaded.experiment.name}")
        for item in planned:
            notes = [facts[item.key].text] if item.key in facts and item.action == "run" else []
            notes += [took[item.stage].text] if item.stage in took else []
            print("\t".join([item.stage, item.action, "; ".join([item.reason, *notes])]))


COMMAND = Command("say what would run, and why", "cltdb plan experiments/quickstart.yaml", add_options, plan_command)

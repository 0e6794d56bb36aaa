"""`cltdb gc`: removes artifacts that nothing refers to."""

from collections import Counter

from cltdb.commands.common import Command, this_project


def add_options(parser):
    parser.add_argument("--yes", action="store_true", help="remove them")


def gc_command(options):
    from cltdb.engine.upkeep import collect_garbage
    from cltdb.stages import STAGES

    unwanted, unused = collect_garbage(this_project(), STAGES, delete=options.yes)
    for directory in unwanted:
        print(("removed " if options.yes else "would remove ") + str(directory))
    counts = unused.records | Counter(path.parent.name for path in unused.folders)
    found = ", ".join([f"{len(unwanted)} artifacts", *(f"{n:,} {kind}" for kind, n in counts.items())])
    print(found + ("" if options.yes or not unwanted and not counts else "; run with --yes to remove them"))


COMMAND = Command("list artifacts that nothing refers to; with --yes remove them", "cltdb gc --yes", add_options, gc_command)

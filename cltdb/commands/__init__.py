"""The commands of `cltdb`, in the order of its help. One is a module: its help, example, options and function, heavy imports only where it
runs. A module is imported when its command is asked for: all of them take a tenth of the time that a question takes to start."""

from collections.abc import Mapping
from importlib import import_module

PLACES = {
    "run": "run.COMMAND",
    "plan": "plan.COMMAND",
    "status": "status.COMMAND",
    "sql": "sql.COMMAND",
    "attribute": "attribute.COMMAND",
    "intervene": "intervene.COMMAND",
    "match": "match.COMMAND",
    "encode": "encode.COMMAND",
    "search": "search.COMMAND",
    "explain": "explain.COMMAND",
    "judged": "judged.COMMAND",
    "dash": "dash.COMMAND",
    "db": "db.COMMAND",
    "import": "transfer.IMPORT",
    "export": "transfer.EXPORT",
    "init": "init.COMMAND",
    "doctor": "doctor.COMMAND",
    "gc": "gc.COMMAND",
}


class _Commands(Mapping):
    def __getitem__(self, name):
        module, constant = PLACES[name].split(".")
        return getattr(import_module(f"cltdb.commands.{module}"), constant)

    def __contains__(self, name):
        return name in PLACES

    def __iter__(self):
        return iter(PLACES)

    def __len__(self):
        return len(PLACES)


COMMANDS = _Commands()
"""{name: Command}."""

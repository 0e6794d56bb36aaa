"""The commands of `cltdb`, in the order of its help. One is a module: its help, example, options and function, heavy imports only where it
runs."""

from cltdb.commands import (
    attribute,
    dash,
    db,
    doctor,
    encode,
    explain,
    gc,
    init,
    intervene,
    match,
    plan,
    run,
    search,
    sql,
    status,
    transfer,
)

COMMANDS = {
    "run": run.COMMAND,
    "plan": plan.COMMAND,
    "status": status.COMMAND,
    "sql": sql.COMMAND,
    "attribute": attribute.COMMAND,
    "intervene": intervene.COMMAND,
    "match": match.COMMAND,
    "encode": encode.COMMAND,
    "search": search.COMMAND,
    "explain": explain.COMMAND,
    "dash": dash.COMMAND,
    "db": db.COMMAND,
    "import": transfer.IMPORT,
    "export": transfer.EXPORT,
    "init": init.COMMAND,
    "doctor": doctor.COMMAND,
    "gc": gc.COMMAND,
}

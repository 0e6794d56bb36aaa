"""`cltdb import` and `cltdb export`: dictionaries, features and graphs in the formats of other tools."""

import argparse
from pathlib import Path

from cltdb import output
from cltdb.commands.common import Command, this_database, this_project
from cltdb.errors import CltdbError
from cltdb.interchange import FORMATS

GRAPH_JSON, FEATURE_JSON = "graph-json", "feature-json"
OPTIONS_OF = {
    **dict.fromkeys(FORMATS, ("model", "hook_normalized")),
    GRAPH_JSON: ("dictionary", "node_threshold", "edge_threshold", "scan", "overwrite"),
    FEATURE_JSON: ("scan", "packed"),
}
"""The options of import and export that formats have."""


def _share(text):
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share between 0 and 1")
    return value


def add_import_options(parser):
    parser.add_argument("format", choices=[*FORMATS, GRAPH_JSON])
    parser.add_argument("path", help="a folder, or hf://owner/name[@revision][/folder]; of graph-json a file")
    parser.add_argument("-o", dest="output", metavar="FOLDER", help="where to write a dictionary; must not be there yet")
    parser.add_argument(
        "--model", metavar="MODEL", help="a dictionary: the model it is of, which is loaded to check that it fits"
    )
    parser.add_argument(
        "--hook-normalized",
        choices=["after", "before"],
        help="a dictionary that reads ln2.hook_normalized: whether that lies after or before the norm's gain and bias",
    )
    parser.add_argument("--dictionary", metavar="DICT_ID", help="graph-json: the dictionary the features are of")


def add_export_options(parser):
    parser.add_argument("format", choices=[*FORMATS, GRAPH_JSON, FEATURE_JSON])
    parser.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="a dict_id of the database or the folder of a dictionary; of graph-json graph_ids",
    )
    parser.add_argument(
        "-o", dest="output", metavar="FOLDER", required=True, help="where to write; of a dictionary it must not be there yet"
    )
    parser.add_argument(
        "--node-threshold", type=_share, metavar="SHARE", help="graph-json: influence the nodes keep (default 0.8)"
    )
    parser.add_argument(
        "--edge-threshold", type=_share, metavar="SHARE", help="graph-json: influence the edges keep (default 0.98)"
    )
    parser.add_argument("--scan", metavar="NAME", help="graph-json, feature-json: the model's name there (default its id)")
    parser.add_argument(
        "--hook-normalized",
        choices=["after"],
        help="clt-forge: of a LayerNorm model, for TransformerLens before 3.0, whose ln2.hook_normalized is the MLP's input",
    )
    parser.add_argument("--overwrite", action="store_true", default=None, help="graph-json: also over files of other programs")
    parser.add_argument("--packed", action="store_true", default=None, help="feature-json: one file per layer, as on the Hub")


def import_command(options):
    _refuse_other_options(options)
    if options.format == GRAPH_JSON:
        return _import_graph(options)
    if options.output is None:
        raise CltdbError("cltdb import", found="no -o FOLDER", expected="a folder to write to", do="add -o FOLDER")
    from cltdb.interchange import local_copy, published_parts

    _new_folder(options.output)
    dictionary = published_parts(options.format, local_copy(options.path, root=Path.cwd(), where="cltdb import"))
    if options.model:
        dictionary = _fitted(dictionary, options.model, options.hook_normalized)
    elif options.hook_normalized:
        from cltdb.interchange.hook_points import named_after

        dictionary = named_after(dictionary, options.hook_normalized)
    dictionary.save(options.output)
    output.say(f"wrote {options.output}: {_size_of(dictionary)}")


def _fitted(dictionary, model, hook_normalized):
    """The dictionary as the model of this name or folder needs it."""
    from cltdb.interchange.hook_points import fitted
    from cltdb.model.language_model import load_model

    mlp_input, name = dictionary.info.get("mlp_input", "normed"), dictionary.info.get("model_id")
    lm = load_model(model, device="cpu", mlp_input=mlp_input, model_id=name if Path(model).is_dir() else None)
    return fitted(dictionary, lm, hook_normalized=hook_normalized)


def _import_graph(options):
    from cltdb.database.api import open as open_database
    from cltdb.interchange.graph_import import import_graph

    if options.output is not None:
        raise CltdbError(
            "cltdb import graph-json", found="-o", expected="none: it goes into the workspace and the database", do="leave it out"
        )
    project = this_project()
    graph_id = import_graph(options.path, project, dictionary=options.dictionary)
    [row] = open_database(project.database).graphs().filter(graph_id=graph_id).to_dicts()
    output.say(f"graph {graph_id}: {row['n_nodes']} nodes, {row['n_edges']} edges, dictionary {row['dict_id'] or 'unknown'}")


def export_command(options):
    _refuse_other_options(options)
    output.check_folder(options.output, project=this_project())
    if options.format == GRAPH_JSON:
        return _export_graphs(options)
    if len(options.names) > 1:
        raise CltdbError(
            "cltdb export", found=f"{len(options.names)} names", expected="one dictionary", do="export them one by one"
        )
    if options.format == FEATURE_JSON:
        from cltdb.interchange.feature_json import export_dictionary

        n_features = export_dictionary(
            this_database(), options.names[0], options.output, scan=options.scan, packed=bool(options.packed)
        )
        output.say(f"wrote {n_features} features into {options.output}")
        return
    from cltdb.interchange import save_published
    from cltdb.model.transcoder import load_dictionary

    choices = {} if options.hook_normalized is None else {"hook_normalized": options.hook_normalized}
    if choices and options.format != "clt-forge":
        raise CltdbError(
            f"cltdb export {options.format}",
            found="--hook-normalized",
            expected="none: its files name mlp.hook_in, which means one thing",
            do="leave it out",
        )
    _new_folder(options.output)
    dictionary = load_dictionary(_dictionary_folder(options.names[0]))
    save_published(dictionary, options.format, options.output, **choices)
    output.say(f"wrote {options.output}: {_size_of(dictionary)}")


def _export_graphs(options):
    from cltdb.interchange.feature_json import write_graph_features
    from cltdb.interchange.graph_json import read_graph, write_graph

    given = {"node_threshold": options.node_threshold, "edge_threshold": options.edge_threshold}
    shares = {"node_threshold": 0.8, "edge_threshold": 0.98} | {name: value for name, value in given.items() if value is not None}
    for graph_id in options.names:
        graph = read_graph(this_database(), graph_id, **shares)
        path = write_graph(graph, options.output, scan=options.scan, overwrite=bool(options.overwrite))
        n_features = write_graph_features(this_database(), graph, options.output, scan=options.scan)
        kept = graph.pruned
        output.say(f"wrote {path}: {kept.nodes.height} nodes, {kept.edges.height} edges, {n_features} features")


def _refuse_other_options(options):
    every = {name for names in OPTIONS_OF.values() for name in names}
    for name in sorted(every - set(OPTIONS_OF.get(options.format, ()))):
        if getattr(options, name, None) is not None:
            raise CltdbError(
                f"cltdb {options.command} {options.format}",
                found=f"--{name.replace('_', '-')}",
                expected="none of the options of another format",
                do="leave it out",
            )


def _new_folder(path):
    output.check_folder(path, project=this_project())
    if Path(path).exists():
        raise CltdbError(
            str(path), found="a file or folder of that name", expected="a new one", do="choose another, or remove it"
        )


def _dictionary_folder(name):
    """The folder of a dictionary given by its path or by its id in the project's database."""
    from cltdb.database.api import open as open_database

    if (Path(name) / "dictionary.json").is_file():
        return Path(name)
    found = {row["dict_id"]: row["path"] for row in open_database(this_database()).dictionaries().to_dicts()}
    if name not in found:
        raise CltdbError(
            "cltdb export",
            found=repr(name),
            expected=f"a folder with dictionary.json, or one of {', '.join(found) or 'no dictionary yet'}",
            do="list them with: cltdb sql 'SELECT dict_id FROM dictionaries'",
        )
    return this_project().workspace / found[name]


def _size_of(dictionary):
    return f"{dictionary.kind}, {dictionary.n_layers} layers of {dictionary.n_features} features, d_model {dictionary.d_model}"


IMPORT = Command(
    "a dictionary of another tool as one of cltdb's, or an attribution graph into the database",
    "cltdb import circuit-tracer hf://mntss/clt-gemma-2-2b-426k -o dictionaries/gemma\n"
    "  cltdb import graph-json dallas.json --dictionary gemma-clt-0123abcd",
    add_import_options,
    import_command,
)
EXPORT = Command(
    "a dictionary, its features or attribution graphs in the format of another tool",
    "cltdb export circuit-tracer quickstart-clt-0123abcd -o for-circuit-tracer\n"
    "  cltdb export graph-json france-0123abcd spain-4567cdef -o graphs\n"
    "  cltdb export feature-json quickstart-clt-0123abcd -o graphs",
    add_export_options,
    export_command,
)

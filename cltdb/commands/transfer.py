"""`cltdb import` and `cltdb export`: dictionaries, features and graphs in the formats of other tools."""

import argparse
from pathlib import Path

from cltdb import output
from cltdb.commands.common import Command, add_commands, this_project
from cltdb.errors import CltdbError
from cltdb.interchange import FORMATS


def _share(text):
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share between 0 and 1")
    return value


def _add_folder(parser, about):
    parser.add_argument("-o", dest="output", metavar="FOLDER", required=True, help=about)


def _add_scan(parser):
    parser.add_argument("--scan", metavar="NAME", help="the name of the model in the files (default: its id)")


def add_import_options(parser):
    parser.add_argument("path", metavar="PATH", help="the folder of the dictionary, or hf://owner/name[@revision][/folder]")
    _add_folder(parser, "the new folder to write the dictionary to")
    parser.add_argument(
        "--model", metavar="MODEL", help="the model that the dictionary is of: it is loaded to check that the two fit"
    )
    parser.add_argument(
        "--hook-normalized",
        choices=["after", "before"],
        help="for a dictionary that reads ln2.hook_normalized: whether this point lies after or before the norm's gain and bias",
    )


def add_graph_import_options(parser):
    parser.add_argument("path", metavar="FILE", help="the JSON file of the graph, as circuit-tracer and Neuronpedia write it")
    parser.add_argument(
        "--dictionary", metavar="DICT_ID", help="the dictionary of this database that the graph's features are of"
    )


def add_export_options(parser):
    parser.add_argument("name", metavar="NAME", help="the dict_id of a dictionary of this database, or the folder of one")
    _add_folder(parser, "the new folder to write the dictionary to")


def add_clt_forge_options(parser):
    add_export_options(parser)
    parser.add_argument(
        "--hook-normalized",
        choices=["after"],
        help="for TransformerLens before 3.0, in which ln2.hook_normalized of a LayerNorm is the MLP's input",
    )
    parser.add_argument(
        "--model", metavar="MODEL", help="with --hook-normalized: the model (default: the one that the dictionary names)"
    )


def add_graph_export_options(parser):
    parser.add_argument("names", nargs="+", metavar="GRAPH_ID", help="a graph of this database")
    _add_folder(parser, "the folder to write to")
    for what, default in (("node", 0.8), ("edge", 0.98)):
        parser.add_argument(
            f"--{what}-threshold",
            type=_share,
            default=default,
            metavar="SHARE",
            help=f"share of the influence that the kept {what}s make up (default {default})",
        )
    _add_scan(parser)
    parser.add_argument("--overwrite", action="store_true", help="also replace files that cltdb did not write")


def add_feature_export_options(parser):
    parser.add_argument("name", metavar="DICT_ID", help="a dictionary of this database")
    _add_folder(parser, "the folder to write to")
    _add_scan(parser)
    parser.add_argument(
        "--packed", action="store_true", help="write one file per layer, as on the Hub, instead of one per feature"
    )


def import_dictionary(options):
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
    from cltdb.model.loading import load_model

    mlp_input, name = dictionary.info.get("mlp_input", "normed"), dictionary.info.get("model_id")
    lm = load_model(model, device="cpu", mlp_input=mlp_input, model_id=name if Path(model).is_dir() else None)
    return fitted(dictionary, lm, hook_normalized=hook_normalized)


def import_graph_file(options):
    from cltdb.database.api import open as open_database
    from cltdb.interchange.graph_import import import_graph

    project = this_project()
    graph_id = import_graph(options.path, project, dictionary=options.dictionary)
    [row] = open_database(project.database).graphs().filter(graph_id=graph_id).to_dicts()
    output.say(f"graph {graph_id}: {row['n_nodes']} nodes, {row['n_edges']} edges, dictionary {row['dict_id'] or 'unknown'}")


def export_dictionary(options):
    from cltdb.interchange import save_published
    from cltdb.model.transcoder import load_dictionary

    _new_folder(options.output)
    dictionary = load_dictionary(_dictionary_folder(options.name))
    choice = getattr(options, "hook_normalized", None)
    about = {"hook_normalized": choice, "model": options.model or _model_of(dictionary, options.name)} if choice else {}
    save_published(dictionary, options.format, options.output, **about)
    output.say(f"wrote {options.output}: {_size_of(dictionary)}")


def _model_of(dictionary, name):
    """The model that a dictionary names, as `load_model` takes it; name: its folder or dict_id."""
    from cltdb.model.source import model_source

    model = dictionary.info.get("model_id")
    return model and model_source(model, Path.cwd() if Path(name).is_dir() else this_project().root)


def export_graphs(options):
    from cltdb.interchange.feature_json import write_graph_features
    from cltdb.interchange.graph_annotations import left_out
    from cltdb.interchange.graph_json import read_graph, write_graph

    project = this_project()
    output.check_folder(options.output, project=project)
    for graph_id in options.names:
        shares = {"node_threshold": options.node_threshold, "edge_threshold": options.edge_threshold}
        graph = read_graph(project.database, graph_id, **shares, workspace=project.workspace)
        path = write_graph(graph, options.output, scan=options.scan, overwrite=options.overwrite)
        n_features = write_graph_features(project.database, graph, options.output, scan=options.scan)
        kept = graph.pruned
        output.say(f"wrote {path}: {kept.nodes.height} nodes, {kept.edges.height} edges, {n_features} features")
        if n := left_out(graph.made, (node["node_id"] for node in graph.nodes), kept.nodes["node_id"]):
            output.say(
                f"{n} of the pinned or grouped nodes are not among those that are kept: raise --node-threshold to have them"
            )


def export_features(options):
    from cltdb.interchange import feature_json

    project = this_project()
    output.check_folder(options.output, project=project)
    n_features = feature_json.export_dictionary(
        project.database, options.name, options.output, scan=options.scan, packed=options.packed
    )
    output.say(f"wrote {n_features} features into {options.output}")


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
    project = this_project()
    found = {row["dict_id"]: row["path"] for row in open_database(project.database).dictionaries().to_dicts()}
    if name not in found:
        raise CltdbError(
            "cltdb export",
            found=repr(name),
            expected=f"a folder with dictionary.json, or one of {', '.join(found) or 'no dictionary yet'}",
            do="list them with: cltdb sql 'SELECT dict_id FROM dictionaries'",
        )
    return project.workspace / found[name]


def _size_of(dictionary):
    return f"{dictionary.kind}, {dictionary.n_layers} layers of {dictionary.n_features} features, d_model {dictionary.d_model}"


IMPORTS = {
    name: Command(
        f"take over a dictionary in the format {name}",
        f"cltdb import {name} downloads/theirs -o dictionaries/mine",
        add_import_options,
        import_dictionary,
    )
    for name in FORMATS
} | {
    "graph-json": Command(
        "put an attribution graph into the database",
        "cltdb import graph-json dallas.json --dictionary gemma-clt-0123abcd",
        add_graph_import_options,
        import_graph_file,
    )
}
EXPORTS = {
    name: Command(
        f"write a dictionary in the format {name}",
        f"cltdb export {name} quickstart-clt-0123abcd -o for-others",
        add_clt_forge_options if name == "clt-forge" else add_export_options,
        export_dictionary,
    )
    for name in FORMATS
} | {
    "graph-json": Command(
        "write attribution graphs with their features",
        "cltdb export graph-json france-0123abcd spain-4567cdef -o graphs",
        add_graph_export_options,
        export_graphs,
    ),
    "feature-json": Command(
        "write the features of a dictionary, a page each",
        "cltdb export feature-json quickstart-clt-0123abcd -o graphs",
        add_feature_export_options,
        export_features,
    ),
}
IMPORT = Command(
    "take over a dictionary or an attribution graph of another tool",
    "cltdb import circuit-tracer hf://mntss/clt-gemma-2-2b-426k -o dictionaries/gemma",
    lambda parser: add_commands(parser, IMPORTS, dest="format", metavar="FORMAT"),
)
EXPORT = Command(
    "write a dictionary, its features or attribution graphs for another tool",
    "cltdb export circuit-tracer quickstart-clt-0123abcd -o for-circuit-tracer",
    lambda parser: add_commands(parser, EXPORTS, dest="format", metavar="FORMAT"),
)

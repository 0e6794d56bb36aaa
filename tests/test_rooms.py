"""The rules of the layout: imports point downward and make no circle, functions and files stay small."""

import ast
import re
from functools import cache

from command_line import ROOT

from cltdb import _PUBLIC
from cltdb.stages import STAGES

ROOMS = [  # from the ground up; a line is one room. A room imports itself and the rooms above its line, wherever in a file an import stands.
    "cltdb",
    "cltdb.errors cltdb.log cltdb.output cltdb.memory cltdb.tensor_files cltdb.devices cltdb.intervals",
    "cltdb.engine",
    "cltdb.metrics",
    "cltdb.toyworld",
    "cltdb.model",
    "cltdb.activations",
    "cltdb.interchange",
    "cltdb.train",
    "cltdb.evaluate",
    "cltdb.harvest",
    "cltdb.explain",
    "cltdb.graphs",
    "cltdb.replacement",
    "cltdb.attribution",
    "cltdb.groups",
    "cltdb.match",
    "cltdb.annotations",
    "cltdb.database",
    "cltdb.interchange.graph_annotations cltdb.interchange.graph_file cltdb.interchange.graph_ids cltdb.interchange.graph_import cltdb.interchange.graph_json "
    "cltdb.interchange.feature_json",  # foreign forms of what the database holds
    "cltdb.stages",
    "cltdb.spec",
    "dashboards",
    "cltdb.commands",
    "cltdb.__main__",
    "cltdb.standby",
]
ONLY = {
    "dashboards": {
        *("cltdb", "cltdb.errors", "cltdb.engine", "cltdb.graphs", "cltdb.annotations", "cltdb.database"),
        *("cltdb.interchange.graph_json", "cltdb.interchange.feature_json"),
    }
}
"""Rooms that may import less than all that lie below."""
LIGHT = ("cltdb.engine", "cltdb.graphs", "cltdb.annotations", "cltdb.database", "cltdb.spec", "dashboards", "settings")
"""Rooms, and names of modules in any room, that import without torch."""
MOST_PARAMETERS, MOST_LINES = 8, 450
SHORT = {"cltdb/stages.py": 80, "cltdb/__main__.py": 150}
"""Files that are read first, with their most lines."""

LEVEL = {name: level for level, names in enumerate(ROOMS) for name in names.split()}
PUBLIC = {f"{module}.{name}" for name, module in _PUBLIC.items()} | {"cltdb.model.transcoder.Dictionary.__init__"}
"""What a user calls with keywords of their own."""
PLAIN_WORDS = {"model", "database", "groups", "match"}
"""Stages whose names texts of the engine use as words."""
METHODS = {"groups", "match"}
"""Stages whose names are also those of methods, such as a match's `groups` or a pattern's `match`."""
KERNELS = ("cltdb.model.sparse", "cltdb.model.triton_kernels")
"""Modules whose functions take pointers and strides besides."""


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_of(path): path for folder in ("cltdb", "dashboards") for path in sorted((ROOT / folder).rglob("*.py"))}


@cache
def tree_of(module):
    return ast.parse(FILES[module].read_text())


def imports(module):
    """The modules of this repository that a module imports, at its head or in a function."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in FILES else node.module for name in names]
        else:
            continue
        yield from (name for name in names if name in FILES and name != module)


def room_of(module):
    """The longest name in ROOMS that begins the module's."""
    name = module
    while name not in LEVEL:
        name = name.rpartition(".")[0]
    return name


def test_every_module_stands_in_a_room():
    assert [module for module in FILES if room_of(module) == "cltdb" and module != "cltdb"] == []


def test_folders_of_tests_are_those_of_rooms():
    of_tests = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert of_tests <= {path.parent.name for path in FILES.values()}


def test_no_import_runs_upward():
    upward = set()
    for module in FILES:
        room = room_of(module)
        allowed = ONLY.get(room, {name for name in LEVEL if LEVEL[name] <= LEVEL[room]}) | {room}
        upward |= {(module, other) for other in imports(module) if room_of(other) not in allowed}
    assert sorted(upward) == []


def test_no_imports_make_a_circle():
    graph = {module: set(imports(module)) for module in FILES}
    while ends := {module for module, others in graph.items() if not others}:  # what imports nothing that is left is in no circle
        graph = {module: others - ends for module, others in graph.items() if module not in ends}
    while tops := set(graph) - set().union(*graph.values()):
        graph = {module: others for module, others in graph.items() if module not in tops}
    assert sorted(graph) == []


def light_modules():
    """Those that need no torch, which tests/test_layout.py imports; but for pages, which an app imports: test_site.py."""
    light = [module for module in FILES if {room_of(module), module.rpartition(".")[2]} & set(LIGHT)]
    return [module for module in light if not module.startswith("dashboards.pages.")]


def functions(tree, prefix):
    """(qualified name, names of the parameters) of every function."""
    for node in ast.iter_child_nodes(tree):
        name = f"{prefix}.{node.name}" if hasattr(node, "name") else prefix
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            parts = node.args
            taken = [*parts.posonlyargs, *parts.args, parts.vararg, *parts.kwonlyargs, parts.kwarg]
            yield name, [part.arg for part in taken if part and part.arg not in ("self", "cls")]
        yield from functions(node, name)


def test_no_function_takes_more_than_a_reader_can_hold():
    found = (function for module in FILES if module not in KERNELS for function in functions(tree_of(module), module))
    large = {name: parameters for name, parameters in found if len(parameters) > MOST_PARAMETERS}
    assert {name: large[name] for name in large.keys() - PUBLIC} == {}


def test_no_file_is_longer_than_a_reader_can_hold():
    n_lines = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in FILES.values()}
    assert {name: n for name, n in n_lines.items() if n > SHORT.get(name, MOST_LINES)} == {}


def test_the_engine_names_no_stage():
    """Neither as a name in code nor as a word of its own in a text: what it knows of stages stands in their table."""
    for module in FILES:
        if room_of(module) == "cltdb.engine":
            for node in ast.walk(tree_of(module)):
                text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
                names = {getattr(node, field, None) for field in ("id", "attr", "arg", "name")} - METHODS
                named = ({text} | names) & STAGES.keys()
                found = named | set(re.findall(r"\w+", text)) & (STAGES.keys() - PLAIN_WORDS)
                assert not found, f"{module}, line {node.lineno}: {found}"


def test_single_artifacts_enter_the_database_in_one_way():
    """By `artifacts.bring_in`, which restores a database that is gone; what loads a part alone stays in the database's room."""
    loaders = {module for module in FILES if "load_artifact" in FILES[module].read_text()}
    assert {room_of(module) for module in loaders} == {"cltdb.database"}

"""README and docs: what they show works, what they name is there, and the references say what the code says."""

import contextlib
import importlib.util
import io
import json
import re
import shutil

import documented
import numpy as np
import pytest
from command_line import ROOT
from pages import BASE, EVERY, FENCE, PAGES, commands_in, name_of, snippets, text_of

import cltdb
from cltdb.__main__ import build_parser
from cltdb.database.glossary import meant
from cltdb.engine.section import Section, sections_in
from cltdb.engine.yaml_text import read_pair
from cltdb.evaluate.questions import questions
from cltdb.evaluate.settings import Facts
from cltdb.explain.labels.labels import labels_of
from cltdb.graphs.adjacency import Adjacency
from cltdb.graphs.influence import Shares, influence
from cltdb.graphs.paths import total_effects
from cltdb.graphs.pruning import scores
from cltdb.groups.prompts import parallel_prompts
from cltdb.groups.settings import Groups
from cltdb.spec import load, load_points
from cltdb.stages import STAGES

spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)

PRINTS = re.compile(r"^```python\n([^`]*)^```\n\nIt prints:\n\n```text\n([^`]*)^```$", re.MULTILINE)


def named(found):
    """Snippets as parameters of a test, known by their page and number."""
    return [pytest.param(text, id=f"{page}-{number}") for number, (page, text) in enumerate(found)]


@pytest.fixture(scope="module")
def ids(tmp_path_factory):
    """Ids in a project as the pages know it, whose quickstart is a random dictionary of the toy model, and its folder."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "experiments", folder / "experiments")
    return documented.project(folder) | {"folder": folder}


@pytest.fixture
def project(ids, monkeypatch):
    """The folder of this project, where the test stands in."""
    monkeypatch.chdir(ids["folder"])
    return ids["folder"]


@pytest.mark.parametrize("name", generate.PAGES)
def test_a_reference_says_what_the_code_says(name):
    assert text_of(ROOT / "docs" / name) == generate.PAGES[name](), "write it with: python docs/generate.py"


def whole(section):
    """A section with a value for every key, and every section in it there."""
    values = {}
    for name, field in section.model_fields.items():
        if kinds := list(sections_in(field.annotation)):
            values[name] = [whole(kinds[0])] if "list[" in str(field.annotation) else whole(kinds[0])
        elif field.is_required():
            values[name] = "given"
    return section.model_construct(**values)


def changes(section):
    """(key, the section with another value of it) of every key of a section and of the sections in it."""
    for name, field in type(section).model_fields.items():
        value, key = getattr(section, name), field.alias or name
        inner = value[0] if isinstance(value, list) and value and isinstance(value[0], Section) else value
        if isinstance(inner, Section):
            for rest, other in changes(inner):
                yield f"{key}.{rest}", section.model_copy(update={name: [other] if inner is not value else other})
        else:
            other = not value if isinstance(value, bool) else 7 if isinstance(value, int | float) else "other"
            yield key, section.model_copy(update={name: other})


@pytest.mark.parametrize("stage", [name for name, stage in STAGES.items() if stage.section])
def test_what_spec_says_of_keys_is_so(stage):
    """Another value changes what enters the key of the stage where the page says so, and there alone."""
    page, section = text_of(ROOT / "docs/spec.md"), whole(STAGES[stage].section)
    documented = dict(re.findall(r"^\| `([\w.]+)` \| .*? \| [^|]* \| (yes|no|unless it is the default) \|", page, re.MULTILINE))
    before, checked = section.result_settings(), 0
    for key, other in changes(section):
        if f"{stage}.{key}" in documented and not re.match(r"deepspeed\.fp16\.(?!enabled)", key):  # which need enabled: true
            assert (other.result_settings() != before) == (documented[f"{stage}.{key}"] != "no"), key
            checked += 1
    assert checked > 1


@pytest.mark.parametrize("text", named(snippets("yaml")))
def test_a_spec_is_one(text, tmp_path):
    """Parts of a spec are laid over a small one; a project's file is taken as one."""
    is_project = text.startswith("workspace:")
    (tmp_path / "cltdb.yaml").write_text(text if is_project else BASE)
    (tmp_path / "spec.yaml").write_text(BASE if is_project else text)
    assert load_points(tmp_path / "spec.yaml")


def distinct_commands():
    """The arguments of every command on the pages, each once, as parameters known by the page that shows it first."""
    first = {}
    for page, text in snippets("sh"):
        for program, *words in commands_in(text):
            if program == "cltdb":
                first.setdefault(tuple(words), page)
    return [pytest.param(list(words), id=f"{page}: {' '.join(words)[:50]}") for words, page in first.items()]


def is_named_query(words):
    return words[:2] == ["sql", "--query"]


@pytest.fixture(scope="module")
def parser():
    return build_parser()


def test_named_queries_answer_as_the_pages_ask_them(project, ids, parser):
    """All over one connection, which is faster; the others show that `cltdb sql` does it."""
    asked = [words for words in (param.values[0] for param in distinct_commands()) if is_named_query(words)]
    with cltdb.open(project / "cltdb.duckdb").session() as db:
        for words in asked:
            options = parser.parse_args(documented.adapted(words, ids))
            given = dict(read_pair(pair, option="-p", example="") for pair in options.parameters)
            assert db.query(options.query, **given).columns
    assert len(asked) > 60


@pytest.mark.parametrize("words", [param for param in distinct_commands() if not is_named_query(param.values[0])])
def test_a_command_runs(words, request, parser):
    """In the small project; specs that ship take its `--set`."""
    options, line = parser.parse_args(words), " ".join(words)
    path = ROOT / str(getattr(options, "spec", None))
    if path.is_file():
        assert load_points(path, overrides=options.set)
    if not any(line.startswith(start) for start in documented.ELSEWHERE if start[:3] != "run"):
        request.getfixturevalue("project")
        status, printed = documented.run(words, request.getfixturevalue("ids"))
        assert status == 0 and (printed or "-o" in words)


def test_what_is_not_run_is_on_the_pages():
    lines = [" ".join(words[1:]) for _, text in snippets("sh") for words in commands_in(text)]
    assert all(any(line.startswith(start) for line in lines) for start in documented.ELSEWHERE)


@pytest.mark.parametrize("text", named(snippets("sql")))
def test_a_question_is_answered(text, project):
    cltdb.open(project / "cltdb.duckdb").sql(text)


@pytest.mark.parametrize("text", named(snippets("python")))
def test_python_runs(text, project):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(text, "snippet", "exec"), {"__name__": "snippet"})
    expected = {code: output for page in PAGES for code, output in PRINTS.findall(text_of(page))}
    assert text not in expected or printed.getvalue() == expected[text]


def test_the_example_of_concepts_is_what_cltdb_computes():
    """Its vectors give its edges, these its influence, scores and the effect of an ablation."""
    x, e0, e1 = np.array([2, 1]), np.array([0, 1]), np.array([1, 0])
    a, b, paris = np.array([1, 1]), np.array([0, 1]), np.array([1, 0])  # what is read
    a_writes, b_writes = (np.array([0, 2]), np.array([1, 0])), np.array([2, 0])
    activation_a, activation_b = x @ a - 2, (x + a_writes[0] + e0) @ b - 1
    without_errors = x + a_writes[0]
    written = activation_a * a_writes[1] + (without_errors @ b - 1) * b_writes
    assert [*without_errors, without_errors @ b - 1, *written, (without_errors + written) @ paris] == [2, 3, 2, 5, 0, 7]
    matrix = np.zeros((6, 6))  # rows targets; A, B, error 0, error 1, embedding, Paris
    matrix[0, 4] = x @ a
    matrix[1, [0, 2, 4]] = activation_a * a_writes[0] @ b, e0 @ b, x @ b
    matrix[5, [0, 1, 2, 3, 4]] = (
        activation_a * sum(a_writes) @ paris,
        activation_b * b_writes @ paris,
        e0 @ paris,
        e1 @ paris,
        x @ paris,
    )
    assert (activation_a, activation_b, matrix[5].sum()) == (1, 3, 10)
    edges, weights = Adjacency.of_dense(matrix), np.array([0, 0, 0, 0, 0, 1.0])
    np.testing.assert_allclose(influence(Shares(edges), weights), [0.4, 0.6, 0.15, 0.1, 0.75, 0])
    is_error, is_embedding = np.array([0, 0, 1, 1, 0, 0], bool), np.array([0, 0, 0, 0, 1, 0], bool)
    found = scores(edges, weights, is_error=is_error, is_embedding=is_embedding)
    np.testing.assert_allclose(found, [0.75, 2.75 / 3])
    effects = total_effects(edges, np.array([1.0, 3, 0, 0, 0, 0]), {0: -1.0})
    assert (effects[1], effects[5]) == (-2, -5)


def test_the_table_of_labels_is_read(tmp_path):
    """As the section on the same page names it."""
    (table,) = (text for _, text in snippets("csv"))
    (spec,) = (text for page, text in snippets("yaml") if page == "docs/explanations.md" and "by-hand.csv" in text)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/by-hand.csv").write_text(table)
    (tmp_path / "cltdb.yaml").write_text("")
    (tmp_path / "spec.yaml").write_text(BASE + spec)
    labels = labels_of(load(tmp_path / "spec.yaml").experiment.explain.labels[1], tmp_path)
    assert labels.select("layer", "feature", "explainer").rows() == [(0, 5, "by-hand"), (3, 17, "by-hand")]


def test_the_glossary_is_read(tmp_path):
    """As cltdb.yaml on the same page names it."""
    (lines,) = (text for page, text in snippets("text") if page == "docs/database.md")
    (project,) = (text for page, text in snippets("yaml") if page == "docs/database.md" and "glossary:" in text)
    (tmp_path / "kinds.txt").write_text(lines)
    (tmp_path / "cltdb.yaml").write_text(project)
    found = {word: meant(word, tmp_path / "cltdb.duckdb") for word in ("calendar", "antonyms", "months")}
    assert found["calendar"] == [f"calendar {day}" for day in ("montag", "dienstag", "mittwoch", "januar", "februar")]
    assert found["antonyms"] is None and "months january +" in found["months"]


@pytest.mark.parametrize(("page", "language"), [("docs/groups.md", "text"), ("docs/isolation.md", "json")])
def test_lines_of_a_file_are_read(page, language, tmp_path):
    """Those that are shown, of further concepts and under a second label where they have one."""
    (block,) = (text for name, text in snippets(language) if name == page and text.startswith("{"))
    shown = [json.loads(line) for line in block.splitlines()]
    shown += [line | {"label": "xx"} for line in shown] * (len(shown) == 1)
    lines = [line | {name: line[name] + more for name in ("concept", "text")} for more in ("", " 2", " 3") for line in shown]
    (tmp_path / "lines.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    if language == "text":
        read = parallel_prompts(Groups(prompts={"file": "lines.jsonl"}), tmp_path)
    else:
        read = questions(Facts(file="lines.jsonl"), tmp_path)
    assert {(one.concept, one.label, one.text, one.target) for one in read} == {
        tuple(line[key] for key in ("concept", "label", "text", "target")) for line in lines
    }


def test_what_pages_say_of_the_quickstart_is_the_golden_run():
    """Its dict_id, and the figures of its graph."""
    golden = json.loads((ROOT / "tests/golden/quickstart.json").read_text())
    nodes, edges, graphs = (golden["tables"][name] for name in ("nodes", "edges", "graphs"))
    named = {name for page in PAGES for name in re.findall(r"quickstart-clt-[0-9a-f]{8}", text_of(page))}
    assert named - {"quickstart-clt-0123abcd"} == {
        f"quickstart-clt-{golden['keys']['train'][:8]}"
    }  # an id of no dictionary in helps
    concepts = " ".join(text_of(ROOT / "docs/concepts.md").split())
    kept = [round(table["rows"] * table["kept"][1]) for table in (nodes, edges)]
    assert f"has {nodes['rows']} nodes and {edges['rows']:,} edges; {kept[0]} nodes and {kept[1]} edges are left" in concepts
    for before in ("", "pruned_"):
        found = [graphs[f"{before}{name}_score"][1] for name in ("completeness", "replacement")]
        assert f"they are {found[0]:.3f} and {found[1]:.3f}" in concepts
        assert f"{found[1]:.3f} and {found[0]:.3f} of the" in text_of(ROOT / "docs/graphs.md")


def test_figures_of_the_quickstart_are_those_of_the_golden_run():
    """As the pages round them."""
    figures = json.loads((ROOT / "tests/golden/quickstart.json").read_text())["figures"]
    of, detection, cosines = dict(figures["evaluation"]), dict(figures["detection"]), figures["cosines"][0]
    ((layer, feature, text, score),) = figures["capital"]
    agrees, fvu, l0 = f"{100 * of['top1_agreement']:.1f} %", f"{of['fvu']:.4f}", f"{of['l0']:.0f}"
    quoted = {
        "README.md": [f"layer {layer}, feature {feature}, `{text}`, score {score}"],
        "docs/concepts.md": [
            f"The quickstart has {l0} of 512",
            f"The quickstart has {fvu}",
            f"is the model's in {agrees} of cases",
            f"is explained as `{figures['0:281'][0][0]}`",
        ],
        "docs/training.md": [
            f"| {fvu} at {l0} | {agrees} |",
            "In the quickstart {ce_replacement:.3f} beside {ce_original:.3f}, {ce_zero:.2f} and {ce_mean:.2f}".format(**of),
        ],
        "docs/explanations.md": [
            *(rf"| `{name}` | .* | {value:.3f} |" for name, value in detection.items()),
            "the cosine is {:.3f} ({:.3f} to {:.3f}) beside {:.3f} ({:.3f} to {:.3f})".format(*cosines),
            f"In the quickstart {figures['unscored'][0][0]} features are left",
        ],
        "docs/graphs.md": [f"it is low: {figures['spearman'][0][0]:.2f} in the quickstart's graph"],
    }
    for page, sentences in quoted.items():
        found = " ".join(text_of(ROOT / page).split())
        for sentence in sentences:
            assert re.search(re.escape(sentence).replace(r"\.\*", "[^|]*"), found), (page, sentence)


def form(line):
    """A line that a command prints, with 0 for numbers and ids and `token` for tokens; of a row of numbers that alone."""
    if re.match(r" *[+-]?\d", line):
        return "row"
    return " ".join(re.sub(r"\b[0-9a-f]*\d[0-9a-f.]*\b", "0", re.sub(r"\S+(?=@\d)", "token", line)).split())


def test_what_attribute_prints_looks_as_shown(project, ids):
    """Its lines and the heads of its columns. The pages show a graph without paths and the lines that paths add."""
    status, printed = documented.run(
        ["attribute", "experiments/quickstart.yaml", "--prompt", "The capital of Spain is", "--set", "attribute.paths.n=50"], ids
    )
    shown = [line for page, text in snippets("text") if page == "docs/graphs.md" for line in text.splitlines()]
    assert status == 0 and {form(line) for line in shown if line.strip() != "…"} <= {form(line) for line in printed.splitlines()}
    assert len(shown) > 9


def test_the_figure_of_runs_has_the_stages():
    """In the order that is told below it: those that every experiment has."""
    (figure,) = (text for page, text in snippets("text") if page == "docs/runs.md")
    always = [name for name, stage in STAGES.items() if not stage.optional]
    (told,) = re.findall(r"The stages run in this order: (.*?)\.", text_of(ROOT / "docs/runs.md"), re.DOTALL)
    assert re.findall(r"`(\w+)`", told) == always and all(name in figure for name in always)


KNOWN = {
    "sh": EVERY,  # of other pages than PAGES their words are read, in test_docs_named.py
    "python": PAGES,
    "yaml": PAGES,
    "sql": [*PAGES, ROOT / "cltdb/database/schema/README.md"],  # its table is made in tests/database/test_database_schema.py
    "csv": [ROOT / "docs/explanations.md"],
    "json": [ROOT / "docs/isolation.md"],
    "text": [ROOT / f"docs/{name}.md" for name in ("concepts", "database", "graphs", "groups", "python", "runs")],
}
"""Where blocks of a language may stand: the pages of which a test takes them all."""


@pytest.mark.parametrize("page", EVERY, ids=name_of)
def test_every_block_is_known_to_a_test(page):
    """What is shown in another way needs a test first, then a line in KNOWN."""
    text = text_of(page)
    blocks = FENCE.findall(text)
    assert len(re.findall(r"^[> ]*(?:```|~~~)", text, re.MULTILINE)) == 2 * len(blocks), "a block that is indented or has no end"
    assert not re.search(r"^ {4,}(?:cltdb|python3?|pip|SELECT|FROM|import|from) ", FENCE.sub("", text), re.MULTILINE)
    assert [language for language, _ in blocks if page not in KNOWN.get(language, ())] == []


def test_texts_that_are_shown_are_known_to_a_test():
    """They follow what prints them, are lines of a file, or stand in a page that is written from the code."""
    others = [f"docs/{name}.md" for name in ("database", "graphs", "python", "runs")]  # of which each text has a test
    shown = [(page, text) for page, text in snippets("text") if page not in others]
    printed = {output for page in PAGES for _, output in PRINTS.findall(text_of(page))}
    assert [page for page, text in shown if text not in printed and not text.startswith("{")] == []


def headings(page):
    return {generate.anchor(line.lstrip("# ").replace("`", "")) for line in text_of(page).splitlines() if line.startswith("#")}


@pytest.mark.parametrize("page", EVERY, ids=name_of)
def test_links_lead_somewhere(page):
    text = FENCE.sub("", text_of(page))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith("http"):
            path, _, place = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), target
            assert not place or place in headings(file), target
    for name in re.findall(r"`((?:cltdb|experiments|dashboards|tests|docs|\.ci)/[\w/.-]*)`", text):
        assert (ROOT / name).exists(), name


def test_every_page_is_reached_from_the_readme():
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)\)", text_of(ROOT / "README.md")))
    assert linked == {page.name for page in (ROOT / "docs").glob("*.md")}


def test_the_readme_is_short():
    assert len(text_of(ROOT / "README.md").splitlines()) <= 120

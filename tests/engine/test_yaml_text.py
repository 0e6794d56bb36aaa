"""YAML as specs have it: version 1.2's values, lines of keys, and one line for what it cannot be."""

import random

import pytest
import yaml

from cltdb.__main__ import main
from cltdb.engine import yaml_text
from cltdb.errors import CltdbError, SpecError
from cltdb.spec import find_project, load

MINIMAL = "name: small\nmodel: {id: toyworld}\nactivations:\n  text: [{toyworld: true}]\n"


def read(text, **options):
    return yaml_text.read(text, place=lambda line: f"line {line}", **options)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10), ("0o17", 15), ("0x1F", 31), ("+5", 5), ("-0", 0), ("1_000", 1000), ("1:30", "1:30"), ("12:30:45", "12:30:45"),
        ("1e-5", 1e-5), ("1e6", 1e6), (".5", 0.5), ("5.", 5.0), ("-.inf", float("-inf")), ("0b11", "0b11"), ("1_", "1_"), ("1__0", "1__0"),
        ("true", True), ("TRUE", True), ("tRUE", "tRUE"), ("~", None), ("", None), ("Null", None), ("2026-01-01", "2026-01-01"),
        ('"no"', "no"), ("'5'", "5"), ("!!str 5", "5"), ("!!float 5", 5.0), ("!!int '5'", 5), (r'"\ud83d\ude00"', "😀"), ("=", "="),
        ("{a: &x [1], b: *x}", {"a": [1], "b": [1]}), ("{a: &x {k: 1, l: 2}, b: {<<: *x, l: 3}}", {"a": {"k": 1, "l": 2}, "b": {"k": 1, "l": 3}}),
    ],
)  # fmt: skip
def test_values_are_those_of_yaml_1_2(text, value):
    found = read(text).values
    assert found == value and type(found) is type(value)
    again = read(yaml_text.dump({"key": value})).values["key"]
    assert again == value and type(again) is type(value)


@pytest.mark.parametrize(
    "word", ["1e5", "0o17", "1:30", "010", "yes", "null", "~", "", "1_0", ".inf", "2026-01-01", "<<", "=", "a\nb", " a"]
)
def test_a_written_word_is_read_as_the_word_here_and_by_yaml_1_1(word):
    text = yaml_text.dump({"key": word})
    assert read(text).values == {"key": word} == yaml.safe_load(text)


def test_lines_are_those_of_keys_and_items():
    lines = read("a:\n  b: 1\n  c:\n    - 2\n    - d: 3\n").lines
    assert {path: lines[path] for path in [("a",), ("a", "b"), ("a", "c", 0), ("a", "c", 1, "d")]} == {
        ("a",): 1, ("a", "b"): 2, ("a", "c", 0): 4, ("a", "c", 1, "d"): 5
    }  # fmt: skip


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 8)
)
ODD = {
    "duplicate": ("a: 1\na: 2\n", "a (line 2): found the key twice"),
    "nested duplicate": ("b: [{a: 1,\n a: 2}]", "b.0.a (line 2): found the key twice"),
    "list as key": ("? [a, b]\n: 1\n", "line 1: found a list as a key"),
    "keys as key": ("? {a: b}\n: 1\n", "found keys and values as a key"),
    "number as key": ("a:\n  3: 1\n", "a (line 2): found 3 as a key"),
    "null as key": ("~: 1\n", "found null as a key"),
    "recursive alias": ("a: &a [*a]\n", "found an alias within what it stands for"),
    "recursive alias of keys": ("a: &a {b: {c: *a}}\n", "a.b.c (line 1): found an alias within"),
    "unknown alias": ("a: *b\n", "line 1: found a value that begins with * or &"),
    "pattern without quotes": ("a: [{files: [*.txt]}]\n", "line 1: found a value that begins with * or &"),
    "a thousand laughs": (LAUGHS, "found more than 200,000 values"),
    "deep lists": ("a: " + "[" * 5000 + "]" * 5000, "line 1: found values nested too deeply"),
    "deep keys": ("".join(" " * n + "a:\n" for n in range(200)), "found values nested too deeply"),
    "open quote": ('a: "b\nc: 1\n', "found a quote without its end; expected a closing quote"),
    "open list": ("a: [1, 2", "found the end of the text; expected ',' or ']'"),
    "open keys": ("a: {", "found the end of the text; expected a value"),
    "tab": ("a:\n\tb: 1\n", "line 2: found a tab; expected spaces"),
    "indented deeper": ("a:\n  b: 1\n   c: 2\n", "line 3: found ': ' where no key can stand"),
    "indented less": ("a:\n   b: 1\n  c: 2\n", "line 3: found a line that is indented otherwise"),
    "two keys in a line": ("a: b: c\n", "line 1: found ': ' where no key can stand"),
    "no space": ("a: 1\nb:5\nc: 3\n", "line 3: found a line without ': '"),
    "more after a quote": ("a: 'it's'\n", "line 1: found more after a value"),
    "sign at the beginning": ("a: @b\n", "line 1: found '@' at the beginning of a value; expected a word"),
    "control character": ("a: 1\nb: \x07\n", "line 2: found the character 0x0007"),
    "half a character": ('a: "\\ud83d"\n', "a (line 1): found half a character"),
    "long number": ("a: " + "1" * 5000, "a (line 1): found a number of 5,000 digits"),
    "another document": ("a: 1\n---\nb: 2\n", "found another document"),
    "bare no": ("a:\n - {b: no}\n", "a.0.b (line 2): found a bare no"),
    "bare no in a list": ("a: [yes]\n", "a.0 (line 1): found a bare yes"),
    "python": ("a: !!python/object/apply:os.system [echo]\n", "found the tag tag:yaml.org,2002:python/object/apply:os.system"),
    "own tag": ("a: !mine 3\n", "found the tag !mine"),
    "set": ("a: !!set {b, c}\n", "found the tag"),
    "binary": ("a: !!binary aGk=\n", "found the tag"),
    "number that is none": ("a: !!int many\n", "a (line 1): found 'many'; expected what int can be"),
    "merge of no keys": ("a: {<<: 3}\n", "found << without keys"),
    "long key": ("a: 1\n" + "k" * 500 + ": [\n", "line 3: found"),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_odd_is_one_short_line(kind):
    text, message = ODD[kind]
    with pytest.raises(SpecError) as caught:
        read(text)
    assert message in str(caught.value) and len(str(caught.value)) < 400


WHOLE = (
    MINIMAL,
    "a: &x {k: 1, 'l': [2, ~]}\nb: *x\nc: {<<: *x}\nd: no\n",
    "a:\n  - b: >-\n      folded\n      text\n    c: |\n      é\n\n      😀\n  - 'it''s'\n  - \"x\\ty\\u00e9\"  # a\n",
)
SIGNS = [
    *"az019 \n\t:,[]{}-?&*!|>'\"%@`#<=~.\\_/é\u2028\x85\ufeff\r",
    "\n  ",
    "\n- ",
    ": ",
    " #",
    "--- ",
    "...",
    "!!str ",
    "\\u00e9",
]


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="PyYAML was built without libyaml")
def test_libyamls_parser_gives_what_pyyamls_own_does(monkeypatch):
    """Values, lines and words of errors, of texts with random signs put in and taken out."""

    def outcome(text):
        try:
            return repr(read(text))
        except SpecError as error:
            return str(error)

    rng, texts = random.Random(0), [*WHOLE, "a: |# b\n  c\n", *(text for text, _ in ODD.values() if len(text) < 300)]
    for _ in range(300):
        text = rng.choice(texts[:3] * 5 + texts[3:])
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(len(text) + 1)
            text = text[:place] + rng.choice([*SIGNS, "", ""]) + text[place + rng.randrange(3) :]
        texts.append(text)
    fast = [outcome(text) for text in texts]
    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    for text, found in zip(texts, fast, strict=True):
        assert found == outcome(text), text


def test_other_tools_files_may_have_bare_words():
    assert read("a: no\n", bare_words=True).values == {"a": "no"}


def test_a_file_that_is_no_utf_8_names_its_line(tmp_path):
    (tmp_path / "spec.yaml").write_bytes(b"name: small\nseed: \xff\n")
    with pytest.raises(CltdbError, match="spec.yaml:2: found the byte 0xff; expected UTF-8"):
        load(tmp_path / "spec.yaml")
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert load(tmp_path / "bom.yaml").experiment.name == "small"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train={l0: 5, l0: 6}", r"train.l0 \(--set train={l0: 5, l0: 6}\): found the key twice"),
        ("model.id=no", r"^model.id \(--set model.id=no\): found a bare no"),
        ("train.skip=1", r"train.skip \(--set train.skip=1\): found 1; expected true or false"),
        ("train.l0=true", r"train.l0 \(--set train.l0=true\): found true; expected a number"),
        ("seed=1:30", r"seed \(--set seed=1:30\): found '1:30'; expected an integer"),
        ("model.id=${NO_SUCH_NAME}", r"--set model.id=\${NO_SUCH_NAME}: found \${NO_SUCH_NAME}, which is not set"),
        ("nosuch.key=5", r"nosuch \(--set nosuch.key=5\): found unknown key 'nosuch'"),
        ("train.L0=5", r"train.L0 \(--set train.L0=5\): found unknown key 'L0'; .*write 'l0'"),
        ("train.l0='5", r"--set train.l0='5: found a quote without its end"),
        ("name=" + "x" * 10_000, r"name \(--set name=x{74}…\): found 'x{78}…; expected letters, digits"),
        ("x" * 10_000 + "=3", r"x{79}… \(--set x{79}…\): found unknown key 'x{78}…"),
        ("activations.text.²=3", "activations.text.²"),
        ("activations.text.99999999999=3", "no place"),
        ("=3", "no key=value"),
        ("model=gpt2", r"model \(.*found 'gpt2'; expected keys and values: id, .*; do this: write {id: 'gpt2'}"),
        ("train.sparsity=2.5", "found 2.5; expected keys and values: coefficient; do this: write {coefficient: 2.5}"),
        ("train.kl=true", "found true; expected keys and values: steps, .*; do this: write {} for its defaults"),
        (
            "train.kl=200",
            "found 200; expected keys and values: steps, .*; do this: write one or more of these keys with their values",
        ),
        ("train.deepspeed.bf16=true", "expected keys and values: enabled; do this: write {enabled: true}"),
        ("evaluate.isolation={facts: true}", "expected keys and values: file, .*; do this: write one or more of these keys"),
        ("activations.text=[{toyworld: yes}]", r"^activations.text.0.toyworld \(--set activations.text=.*found a bare yes"),
        ("seed=no", r"^seed \(--set seed=no\): found a bare no"),
        ("evaluate.splice=single", r"found 'single'; expected a list; do this: write \['single'\]"),
        ("train.layers=2", r"found 2; expected a list of one layer or more; do this: write \[2\]"),
        ("train.layers=all", "found 'all'; expected a list of one layer or more; do this: mend it"),
        (
            "train.layers=[2, 0]",
            r"train.layers .*found \[2, 0\]; expected layers in rising order, each once; do this: write \[0, 2\]",
        ),
        ("train.l0=5000", r"train.l0 \(.*found 5000; expected at most the 4,096 of n_features"),
        ("train={activation: topk, l0: 5.5}", r"train.l0 \(.*found 5.5; expected a whole number with activation topk"),
        ("train.sparsity={coefficient: 2}", r"train.sparsity.coefficient \(.*found 2; expected none with activation batchtopk"),
        (
            "train={kind: plt, decoder_span: 2}",
            r"train.decoder_span \(.*found 2; expected none with kind plt.*do this: remove it",
        ),
        (
            "train={batch_tokens: 301, launch: {processes: 2}}",
            r"train.batch_tokens \(.*found 301; expected tokens that the 2 parts",
        ),
        ("train.lr=1e-3", "unknown key 'lr'.*; do this: write 'learning_rate'"),
        ("train.k=8", "unknown key 'k'.*; do this: write 'l0': active features per layer and token"),
        ("train.steps=8", "unknown key 'steps'.*; do this: write 'epochs': passes over the training tokens"),
        ("train.width=8", "unknown key 'width'.*; do this: write 'n_features': features per layer"),
        ("attribute.targets=[a]", "unknown key 'targets'.*; do this: remove it"),
        ("attribute.prompts=[{prompt: The}]", "unknown key 'prompt'.*; do this: write 'text'"),
        ("train.batch_size=8", "unknown key 'batch_size'.*; do this: write 'batch_tokens'"),
        ("model.name=gpt2", "unknown key 'name'.*; do this: write 'id'"),
    ],
)
def test_set_is_as_strict_as_the_file(tmp_path, override, message):
    (tmp_path / "spec.yaml").write_text(MINIMAL)
    with pytest.raises(SpecError, match=message) as caught:
        load(tmp_path / "spec.yaml", overrides=[override])
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("workspace: 3\n", r"workspace \(.*cltdb.yaml:1\): found 3; expected a path"),
        ("\ndatabase: {path: [a]}\n", r"database.path \(.*cltdb.yaml:2\): found \['a'\]; expected a path"),
        ("database: here.duckdb\n", r"database \(.*cltdb.yaml:1\): found 'here.duckdb'; expected keys and values"),
        (
            "database: {Path: a}\n",
            r"database.Path \(.*:1\): found unknown key 'Path'; expected one of path, memory_limit, threads, search; do this: write 'path'",
        ),
        ("Workspace: a\n", r"Workspace \(.*cltdb.yaml:1\): found unknown key 'Workspace'.*do this: write 'workspace'"),
        ("train: {l0: no}\n", r"train.l0 \(.*cltdb.yaml:1\): found a bare no"),
        ("train: {l0: true}\n", r"train.l0 \(.*cltdb.yaml:1\): found true"),
        ("train:\n  L0: 5\n", r"train.L0 \(.*cltdb.yaml:2\): found unknown key 'L0'"),
        ("- a\n", "found a list; expected keys and values"),
        ("hello\n", "found 'hello'; expected keys and values"),
        ("workspace: a\nworkspace: b\n", r"workspace \(.*cltdb.yaml:2\): found the key twice"),
    ],
)
def test_the_project_file_is_read_like_a_spec_by_every_command(tmp_path, text, message):
    (tmp_path / "cltdb.yaml").write_text(text)
    with pytest.raises(SpecError, match=message):
        find_project(tmp_path)
    (tmp_path / "cltdb.yaml").write_text("model: {dtype: float64}\ntrain: {activation: relu, sparsity: {coefficient: 1}}\n")
    assert find_project(tmp_path).workspace == tmp_path / "artifacts"


@pytest.mark.parametrize(
    ("pair", "found"),
    [
        ("text='abc", "found a quote without its end"),
        ("text=[1, 2", "found the end of the text; expected ',' or ']'"),
        ("text=no", "found a bare no"),
        ("k", "found no key=value"),
        ("k=!!python/name:os.system x", "found the tag"),
    ],
)
def test_parameters_of_a_query_are_read_as_a_spec(tmp_path, monkeypatch, capsys, pair, found):
    monkeypatch.chdir(tmp_path)
    assert main(["sql", "SELECT 1", "-p", pair]) == 1
    said = capsys.readouterr().err
    places = [f"-p {pair}", f"{pair.partition('=')[0]} (-p {pair})"]  # of the whole text, of a value in it
    assert said.startswith(tuple(f"error: {place}: {found}" for place in places)) and len(said.splitlines()) == 1
    assert main(["sql", "SELECT 1", "-p", "k=1", "-p", "k=2"]) == 1
    assert "found the parameter twice" in capsys.readouterr().err

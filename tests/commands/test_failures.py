"""Every failure a user meets: one line that says where, what was found, what was expected, what to do; nothing finished is
lost."""

import hashlib
import json
import shutil
import sys
from functools import cache
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from command_line import cltdb, in_one_form, no_larger_files, said
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM
from worlds import dictionaries, models, projects

from cltdb.__main__ import main

SPEC = """
name: tiny
model: {id: model}
activations: {text: [{files: [text.jsonl]}], context: 16, train_tokens: 3000, heldout_tokens: 400, shard_tokens: 320, batch_seqs: 2}
train: {n_features: 24, l0: 3, batch_tokens: 64, init_l0: 6}
harvest: {tokens: 2000, window: 8, pool_windows: 100}
"""
SHORT = "short.txt"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project whose experiment is finished, and what its failing variants need."""
    project = tmp_path_factory.mktemp("failures")
    projects.with_model(project, SPEC)
    pq.write_table(pa.table({"text": projects.documents(200)}), project / "text.parquet")
    (project / SHORT).write_text("too short")
    (project / "broken.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    (project / "prompts.jsonl").write_text('{"text": "fine"}\n{"txt": "wrong key"}\n')
    models.saved(project / "weightless")
    (project / "weightless/model.safetensors").unlink()
    models.byte_tokenizer().save_pretrained(project / "unsupported")
    AutoModelForCausalLM.from_config(
        AutoConfig.for_model(
            "opt", vocab_size=257, hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=16
        )
    ).save_pretrained(project / "unsupported")
    dictionaries.random(n_layers=3).save(project / "deeper")
    shutil.copytree(project / "model", project / "chatting")
    tokenizer = models.byte_tokenizer()
    tokenizer.add_tokens(["<extra>"])
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(project / "chatting")
    shutil.copytree(project / "model", project / "pickled")
    torch.save(load_file(project / "pickled/model.safetensors"), project / "pickled/pytorch_model.bin")
    (project / "pickled/model.safetensors").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        assert main(["run", "tiny.yaml"]) == 0
    return project


def contents(project):
    """What is finished: hashes of the artifacts' files, and of the rows of the database's tables but for its run records."""
    files = {
        str(path.relative_to(project)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (project / "artifacts").glob("*/*/**/*")
        if path.is_file() and ".partial" not in str(path)
    }
    database = (project / "cltdb.duckdb").read_bytes()
    return files, rows_of(project, hashlib.sha256(database).hexdigest())


@cache
def rows_of(project, digest):
    """{table: (rows, their hash)} of the project's database, whose bytes have this digest."""
    with duckdb.connect(str(project / "cltdb.duckdb"), read_only=True) as database:
        tables = [
            name
            for (name,) in database.execute(
                "SELECT table_name FROM duckdb_tables() WHERE table_name NOT IN ('stage_runs', 'experiments') ORDER BY ALL"
            ).fetchall()
        ]
        sums = "SELECT count(*), sum(hash(t)::HUGEINT) FROM {} AS t"
        return {table: database.execute(sums.format(table)).fetchone() for table in tables}


@pytest.fixture(scope="module")
def kept(finished):
    """What is finished in the project, before anything fails."""
    return contents(finished)


def text(files, **more):
    return "activations.text=" + json.dumps([{"files": [files], **more}])


FAILURES = {
    "unknown key": (["train.n_featurs=3"], ["train.n_featurs (--set", "unknown key 'n_featurs'", "write 'n_features'"]),
    "wrong type": (["train.n_features=many"], ["train.n_features", "'many'", "integer"]),
    "wrong choice": (["activations.codec=int3"], ["activations.codec", "'int3'", "'int8'"]),
    "missing text": ([text("gone.txt")], ["activations.text", "gone.txt"]),
    "unknown dataset": (["activations.text=[{dataset: nobody/nothing}]"], ["activations.text", "nobody/nothing"]),
    "messages without a chat template": (
        ["attribute.prompts=[{messages: [{role: user, content: hello}]}]"],
        ["attribute.prompts", "chat template"],
    ),
    "missing prompts": (["attribute.prompts={file: gone.jsonl}"], ["attribute.prompts.file", "gone.jsonl"]),
    "wrong prompts": (["attribute.prompts={file: prompts.jsonl}"], ["prompts.jsonl", "line 2"]),
    "unknown column of .jsonl": ([text("text.jsonl", column="body")], ["activations.text", "'body'", "text"]),
    "unknown column of .parquet": ([text("text.parquet", column="body")], ["activations.text", "'body'", "text"]),
    "broken .jsonl": ([text("broken.jsonl")], ["broken.jsonl"]),
    "missing model": (["model.id=./gone"], ["model.id", "gone"]),
    "model without weights": (["model.id=weightless"], ["weightless", "no weights"]),
    "model with pickled weights": (["model.id=pickled"], ["pickled", "safetensors"]),
    "unsupported architecture": (["model.id=unsupported"], ["opt", "gpt2", "gemma2"]),
    "unknown model on the Hub": (["model.id=nobody/nothing-of-this-name"], ["nobody/nothing-of-this-name"]),
    "text shorter than one context": ([text(SHORT)], ["shorter than one context"]),
    "more tokens than there are": (["activations.train_tokens=1_000_000"], ["1,000,000", "at most"]),
    "more to evaluate than held out": (["evaluate.tokens=5000"], ["evaluate.tokens", "5,000", "400"]),
    "non-finite loss": (["train.learning_rate=1e30"], ["train", "step", "not finite"]),
    "empty prompt": (['attribute.prompts=[{text: " "}]'], ["attribute.prompts.0", "empty prompt"]),
    "prompt longer than the context": ([f"attribute.prompts=[{{text: {'long ' * 30}}}]"], ["attribute.prompts", "64"]),
    "prompt id that is a path": (['attribute.prompts=[{id: "a/b", text: hello}]'], ["attribute.prompts.0.id", "'a/b'"]),
    "foil that is the target": (["attribute.prompts=[{text: hello, target: a, foil: a}]"], ["attribute.prompts.0", "foil"]),
    "a scorer twice": (
        ["explain.scorers=[detection, detection]"],
        ["explain.scorers", "found detection, detection; expected each once"],
    ),
    "no files": (["activations.text=[{files: []}]"], ["activations.text.0.files"]),
    "no API key": (["explain.model=openai/gpt-4o-mini"], ["explain.model", "OPENAI_API_KEY"]),
    "unknown provider": (["explain.model=nobody-knows-this"], ["explain.model", "nobody-knows-this"]),
    "batch for the processes": (["train.launch.processes=3"], ["train.batch_tokens (", "found 64"]),
    "shards of features": (
        ["train.launch={processes: 2, feature_parallel: 2}", "train.n_features=23"],
        ["feature_parallel", "23"],
    ),
    "memory of the loader": (["activations.loader.memory_mb=1", "train.l0=2"], ["activations.loader.memory_mb", "found 1;"]),
}
if not torch.cuda.is_available():
    FAILURES["no such device"] = (["model.device=cuda", "train.l0=2"], ["model.device", "without a CUDA device"])


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_one_line_and_nothing_is_lost(finished, kept, failure, monkeypatch, capfd):
    overrides, words = FAILURES[failure]
    monkeypatch.chdir(finished)
    for name in ("OPENAI_API_KEY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert main(["run", "tiny.yaml", *(part for override in overrides for part in ("--set", override))]) == 1
    error = in_one_form(capfd.readouterr().err)
    missing = [word for word in words if word not in error]
    assert not missing, f"{missing} not in: {error}"
    after = contents(finished)
    assert after[1] == kept[1] and kept[0].items() <= after[0].items()


CHAT = (
    "{% for message in messages %}{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}{{ message.content }}{% endfor %}"
)
TOO_LATE = {
    "a target of two tokens": ({"target": "ab"}, ["attribute.prompts late, target", "'ab', which is 2 tokens"]),
    "a target of none": ({"target": ""}, ["attribute.prompts late, target", "0 tokens"]),
    "one target of several": ({"target": ["a", "bc"]}, ["attribute.prompts late, target", "'bc', which is 2 tokens"]),
    "a target twice": ({"target": ["a", "a"]}, ["attribute.prompts late, target", "each once"]),
    "a foil of two tokens": ({"target": "a", "foil": "xy"}, ["attribute.prompts late, foil", "'xy', which is 2 tokens"]),
    "a position after the end": ({"position": 6}, ["attribute.prompts late, position", "found 6", "1 to 5"]),
    "BOS as position": ({"position": 0}, ["attribute.prompts late, position", "found 0"]),
    "a position before the start": ({"target_feature": "1:3@-6"}, ["attribute.prompts late, position", "found -6"]),
    "a feature of no layer": ({"target_feature": "2:3@-1"}, ["attribute.prompts late, target feature 2:3", "below 2"]),
    "no feature": ({"target_feature": "1:24@-1"}, ["attribute.prompts late, target feature 1:24", "feature below 24"]),
    "a prompt too long": ({"text": "long " * 30}, ["attribute.prompts late", "151 tokens with BOS", "64"]),
    "a token without a row": ({"text": "an <extra> one"}, ["attribute.prompts late", "'<extra>'", "257"]),
    "a target without a row": ({"target": "<extra>"}, ["attribute.prompts late", "'<extra>'", "257"]),
    "roles out of order": (
        {"messages": [{"role": "assistant", "content": "hello"}]},
        ["attribute.prompts late", "refuses (Conversation roles must alternate)"],
    ),
    "two of a role": (
        {"messages": [{"role": "user", "content": "hello"}, {"role": "user", "content": "?"}]},
        ["attribute.prompts late", "refuses (Conversation roles must alternate)"],
    ),
    "a message without content": ({"messages": [{"role": "user"}]}, ["attribute.prompts.0", "a role and a content"]),
    "a message without role": ({"messages": [{"content": "hello"}]}, ["attribute.prompts.0", "a role and a content"]),
    "no message": ({"messages": []}, ["attribute.prompts.0", "one message or more"]),
    "a chat of no text": ({"messages": [{"role": "user", "content": ""}]}, ["attribute.prompts late", "an empty prompt"]),
}


@pytest.mark.parametrize("case", TOO_LATE)
def test_what_tokens_tell_of_a_prompt_is_said_before_anything_is_computed(finished, case, monkeypatch, capfd):
    prompt, words = TOO_LATE[case]
    prompt = {"id": "late", **prompt} if "messages" in prompt else {"id": "late", "text": "hello", **prompt}
    refused(
        finished,
        ["model.id=chatting", f"attribute.prompts={json.dumps([{'text': 'fine'}, prompt])}"],
        [word.replace("prompts.0", "prompts.1") for word in words],
        monkeypatch,
        capfd,
    )


GROUPS = "groups={prompts: {toyworld: true}, label_features: {}, substitute: {%s}}"


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    "override, words",
    [
        ("train.layers=[0, 2]", ["train.layers: found layer 2; expected 0 to 1, the layers of model"]),
        ("evaluate.splice=[[1, 2]]", ["evaluate.splice: found layer 2; expected layers of the dictionary (0, 1)"]),
        (GROUPS % "last_layer: 2", ["groups.substitute.last_layer: found 2; expected a layer of the model, at most 1"]),
        (GROUPS % "first_layer: 7, last_layer: 9", ["groups.substitute.first_layer: found 7"]),
    ],
)
def test_layers_that_the_model_lacks_are_said_by_plan_as_by_run(finished, command, override, words, monkeypatch, capfd):
    refused(finished, ["seed=7", override], words, monkeypatch, capfd, command=(command, "tiny.yaml"))


@pytest.mark.parametrize(
    "override, words",
    [
        ("train.layers=[0, 2]", ["train.layers", "layer 2", "0 to 1"]),
        ("train={from: {format: cltdb, path: deeper}}", ["dictionary", "3 layers of width 16", "2 layers of width 16"]),
        ("activations.exclude_tokens=['<none>']", ["activations.exclude_tokens", "'<none>', which is 6 tokens"]),
        ("activations.exclude_tokens=[257]", ["activations.exclude_tokens", "257", "an id from 0 to 256"]),
        ("attribute={constant_positions: 60, prompts: [{text: fine}]}", ["constant_positions", "60 of a prompt's 5 tokens"]),
        ("activations.context=65", ["activations.context", "65", "64 positions"]),
        (text("gone.txt"), ["activations.text.files", "gone.txt"]),
        ("activations.text=[{files: [text.jsonl, 'gone*.txt']}]", ["activations.text.files", "matches gone*.txt"]),
        ("activations.text=[{files: [text.jsonl]}, {files: ['*.csv']}]", ["activations.text.files", "*.csv"]),
        ("model.device=cuda:99", ["model.device", "cuda:99"]),
        ("train.wandb=mine", ["train.wandb", "without the package wandb", "pip install"]),
        ("train.optimizer=adam8bit", ["train.optimizer", "without the package bitsandbytes", "pip install"]),
    ],
)
def test_what_sizes_and_files_tell_is_said_before_anything_is_computed(finished, override, words, monkeypatch, capfd):
    for package in ("wandb", "bitsandbytes"):
        monkeypatch.setitem(sys.modules, package, None)
    refused(finished, ["seed=7", "model.dtype=float64", override], words, monkeypatch, capfd)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--prompt", "hello", "--feature", "0:1@1"], ["--feature", "LAYER:FEATURE@POS=VALUE"]),
        (["--prompt", "hello", "--feature", "2:1@1=0"], ["--feature layer", "found 2", "0 to 1"]),
        (["--prompt", "hello", "--feature", "0:24@1=0"], ["--feature feature", "found 24", "0 to 23"]),
        (["--prompt", "hello", "--feature", "0:1@6=0"], ["--feature position", "found 6", "1 to 5"]),
        (["--prompt", "hello", "--feature", "0:1@1=0", "--feature", "0:1@-5=1"], ["--feature", "0:1 set twice"]),
        (
            ["--prompt", "hello", "--feature", "0:1@3=0", "--set", "attribute.constant_positions=4"],
            ["--feature position", "found 3", "4 to 5", "positions 0 to 3 are constant"],
        ),
        (["--prompt", "", "--feature", "0:1@1=0"], ["prompt", "an empty prompt"]),
        (["--prompt", "hello", "--feature", "0:1@1=0", "--until-layer", "2"], ["until_layer", "0 to 1"]),
        (["--prompt", "hello", "--feature", "0:1@1=0", "--generate", "-1"], ["--generate", "-1"]),
    ],
)
def test_what_is_wrong_with_an_intervention_is_said_before_any_training(finished, arguments, words, monkeypatch, capfd):
    refused(finished, ["train.l0=2", "seed=8"], words, monkeypatch, capfd, command=["intervene", "tiny.yaml", *arguments])


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--text", "hello", "--feature", "0"], ["--feature", "LAYER:FEATURE"]),
        (["--text", "hello", "--feature", "2:1"], ["--feature layer", "found 2", "0 to 1"]),
        (["--text", "hello", "--feature", "0:24"], ["--feature feature", "found 24", "0 to 23"]),
        (["--text", "hello", "--feature", "0:1", "--top", "3"], ["--top", "leave one out"]),
        (["--text", "hello", "--top", "0"], ["--top", "found 0"]),
        (["--text", ""], ["prompt", "an empty prompt"]),
        (["--text", "x" * 99], ["prompt", "100 tokens with BOS", "at most the 64"]),
    ],
)
def test_what_is_wrong_with_a_text_is_said_before_any_training(finished, arguments, words, monkeypatch, capfd):
    refused(finished, ["train.l0=2", "seed=8"], words, monkeypatch, capfd, command=["encode", "tiny.yaml", *arguments])


@pytest.mark.parametrize(
    "options, words",
    [
        (["--foil", "a"], ["--foil", "found 0 targets"]),
        (["--target", "a", "--target", "b", "--foil", "c"], ["--foil", "found 2 targets"]),
        (["--target", "a", "--weight", "1", "--foil", "c"], ["--foil", "1 targets with weights"]),
        (["--target", "a", "--foil", "a"], ["error: --foil: found the --target"]),
        (["--target", "a", "--foil", "xy"], ["error: --foil: found 'xy', which is 2 tokens"]),
        (["--target", ""], ["error: --target: found ''"]),
        (["--target", "a", "--target", "b", "--weight", "1"], ["--weight", "found 1 for 2 targets"]),
        (["--target", "a", "--target", "a"], ["--target", "each token once"]),
        (["--target", "a", "--weight", "-1"], ["error: --weight: found -1"]),
        (["--target", "two tokens"], ["error: --target: found", "two tokens", "10 tokens", "one token"]),
        (["--target", "a", "--position", "6"], ["error: --position: found 6", "1 to 5"]),
        (["--target", "a", "--position", "0"], ["error: --position: found 0", "1 to 5"]),
        (["--position", "9999999"], ["error: --position: found 9999999"]),
    ],
)
def test_what_is_wrong_with_what_one_graph_explains_is_said_before_any_training(finished, options, words, monkeypatch, capfd):
    command = ["attribute", "tiny.yaml", "--prompt", "hello", *options]
    refused(finished, ["train.l0=2", "seed=10"], words, monkeypatch, capfd, command=command)


@pytest.mark.parametrize(
    "prompt, words",
    [("long " * 30, ["error: --prompt: found", "151 tokens with BOS", "64"]), (" ", ["error: --prompt: found an empty prompt"])],
)
def test_what_is_wrong_with_the_prompt_of_one_graph_is_said_before_any_training(finished, prompt, words, monkeypatch, capfd):
    refused(finished, ["train.l0=2", "seed=9"], words, monkeypatch, capfd, command=["attribute", "tiny.yaml", "--prompt", prompt])


def test_what_words_and_spec_tell_of_an_intervention_is_said_without_the_imports_of_its_work(tmp_path, monkeypatch, capfd):
    projects.new(tmp_path, "name: none\nactivations: {}\n")
    monkeypatch.chdir(tmp_path)
    for module in ("cltdb.attribution.intervene", "cltdb.model.source"):
        monkeypatch.setitem(sys.modules, module, None)
    for arguments, words in (
        (["--feature", "0:1@1=0"], "found neither of --prompt and --graph"),
        (["--prompt", "x", "--feature", "0:1@1=0"], "model (none.yaml:1): found nothing"),
    ):
        assert main(["intervene", "none.yaml", *arguments]) == 1
        assert words in in_one_form(capfd.readouterr().err)


def test_a_config_of_other_types_is_said_by_run_and_does_not_stop_plan(project, monkeypatch, capfd):
    config = project / "model/config.json"
    config.write_text(config.read_text().replace('"n_layer": 2', '"n_layer": "two"'))
    monkeypatch.chdir(project)
    assert main(["plan", "tiny.yaml"]) == 0
    capfd.readouterr()
    assert main(["run", "tiny.yaml"]) == 1 and "n_layer" in in_one_form(capfd.readouterr().err)


def refused(finished, overrides, words, monkeypatch, capfd, *, command=("run", "tiny.yaml")):
    """A command fails with one line that holds these words, and no stage has begun."""
    monkeypatch.chdir(finished)
    before = set((finished / "artifacts").glob("*/*"))
    assert main([*command, *(part for override in overrides for part in ("--set", override))]) == 1
    error = in_one_form(capfd.readouterr().err)
    assert not [word for word in words if word not in error], error
    begun = set((finished / "artifacts").glob("*/*")) - before
    assert not [path for path in begun if path.parent.name != "experiments"]


@pytest.fixture
def project(finished, tmp_path):
    """A copy of the finished project, to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "project"))


def test_a_truncated_shard_is_named_and_forcing_its_stage_mends_it(project, monkeypatch, capfd):
    monkeypatch.chdir(project)
    shard = next(project.glob("artifacts/activations/*/train-00001.arrow"))
    shard.write_bytes(shard.read_bytes()[:-1000])
    before = contents(project)
    assert main(["run", "tiny.yaml", "--set", "train.l0=2"]) == 1
    error = in_one_form(capfd.readouterr().err)
    assert str(shard) in error and "--force activations" in error
    after = contents(project)
    assert after[1] == before[1] and before[0].items() <= after[0].items()
    assert main(["run", "tiny.yaml", "--force", "activations", "--set", "train.l0=2", "--until", "train"]) == 0


def test_a_full_disk_under_the_database(project, monkeypatch, capfd):
    monkeypatch.chdir(project)
    whole = contents(project)
    (project / "cltdb.duckdb").unlink()
    with no_larger_files(500_000):
        assert main(["run", "tiny.yaml"]) == 1
    error = in_one_form(capfd.readouterr().err)
    assert str(project / "cltdb.duckdb") in error and "no room to write" in error
    assert main(["run", "tiny.yaml"]) == 0
    assert contents(project)[1]["features"] == whole[1]["features"]


def test_a_spec_that_is_none(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("text.yaml").write_text("just words")
    Path("broken.yaml").write_text("name: [tiny\n")
    Path("twice.yaml").write_text("name: one\nname: two\n")
    for spec, word in (("text.yaml", "keys and values"), ("broken.yaml", "broken.yaml:2"), ("twice.yaml", "twice")):
        assert main(["run", spec]) == 1 and word in in_one_form(capfd.readouterr().err)
    assert "no such file" in said(cltdb(tmp_path, "run", "gone.yaml"))

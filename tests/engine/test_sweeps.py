"""The section `sweep`: its grid, names, overrides, errors; a point is the plain spec with its values."""

import pytest
from worlds import projects

from cltdb.engine.plan import plan_points
from cltdb.engine.run import plan
from cltdb.engine.sweeps import check_names, point_name
from cltdb.errors import CltdbError
from cltdb.spec import load, load_points

SPEC = """name: small
model: {id: toyworld}
activations: {text: [{toyworld: true}]}
train: {n_features: 48}
"""
SWEEP = "sweep:\n  train.l0: [5, 10.0]\n  train:\n    learning_rate: [1e-3, 3e-3]\n"
NAMES = [f"small-l0_{l0}-learning_rate_{rate}" for l0 in (5, 10) for rate in (0.001, 0.003)]


def points(folder, sweep=SWEEP, *overrides):
    return load_points(projects.new(folder, SPEC + sweep) / "small.yaml", overrides=overrides)


def names(*arguments):
    return [loaded.experiment.name for loaded in points(*arguments)]


def test_the_grid_in_order_with_names_and_values(tmp_path):
    found = points(tmp_path)
    assert [loaded.experiment.name for loaded in found] == NAMES
    assert [(loaded.experiment.train.l0, loaded.experiment.train.learning_rate) for loaded in found] == [
        (5, 1e-3), (5, 3e-3), (10, 1e-3), (10, 3e-3)
    ]  # fmt: skip
    assert {loaded.sweep for loaded in found} == {"small"} and found[0].swept == {"train.l0": 5, "train.learning_rate": 0.001}
    assert all(loaded.experiment.sweep == {} for loaded in found)


def test_a_point_is_the_plain_spec_with_its_values(tmp_path):
    point = points(tmp_path)[2]
    [plain] = points(tmp_path, "", "train.l0=10.0", "train.learning_rate=1e-3", f"name={point.experiment.name}")
    assert plain.sweep is None and (plain.experiment, plain.text, plain.spec_hash) == point[:1] + point[2:4]
    [other_name] = points(tmp_path, "", "train.l0=10", "train.learning_rate=1e-3")
    assert [item.key for item in plan(point)] == [item.key for item in plan(other_name)]
    shared = {(item.stage, item.key) for loaded in points(tmp_path) for item in plan(loaded)}
    assert sum(stage == "activations" for stage, _ in shared) == 1 and sum(stage == "train" for stage, _ in shared) == 4


PROMPTS = "attribute: {prompts: [{id: one, text: The capital of France is}], check_edges: 3}\n"


@pytest.mark.parametrize("sweep", ["sweep: {train.kind: [clt, sae]}\n", "sweep: {train: [{kind: clt}, {kind: sae}]}\n"])
def test_a_point_whose_kind_has_no_graphs_goes_without_the_prompts(tmp_path, sweep):
    clt, sae = points(tmp_path, PROMPTS + sweep)
    assert [len(point.experiment.attribute.prompts) for point in (clt, sae)] == [1, 0]
    assert sae.experiment.attribute.check_edges == 3 and "prompts" not in sae.text
    [of_clt], [of_sae] = ([item for item in plan(point) if item.stage == "attribute"] for point in (clt, sae))
    assert (of_clt.action, of_sae.action) == ("run", "cached")
    assert of_sae.reason == "not needed: no graph leads through an sae, which explains an activation and not how the MLP makes it"
    assert not any("input attribute" in item.parts for item in plan(sae)) and any(
        "input attribute" in item.parts for item in plan(clt)
    )


def test_prompts_that_one_asks_of_such_a_kind_itself_are_refused(tmp_path):
    message = "attribute.prompts .*: found sae; expected a train.kind that explains how .* beside prompts; do this: leave the prompts out"
    prompt = "attribute.prompts=[{text: The}]"
    for sweep, overrides in (
        ("", ["train.kind=sae"]),
        ("sweep: {train.l0: [1, 2]}\n", ["train.kind=sae"]),
        ("sweep: {train.kind: [clt, sae]}\n", [prompt]),
        ("sweep: {train.kind: [sae], attribute.prompts: [[{text: The}]]}\n", []),
    ):
        with pytest.raises(CltdbError, match=message):
            points(tmp_path, PROMPTS + sweep, *overrides)


def test_one_point_is_loaded_whatever_is_wrong_with_others(tmp_path):
    """Such as prompts for a point whose kind has graphs, asked of it alone."""
    sweep, prompt = "sweep: {train.kind: [clt, sae]}\n", ["attribute.prompts=[{text: The}]"]
    with pytest.raises(CltdbError):
        points(tmp_path, PROMPTS + sweep, *prompt)
    for name in ("small-kind_clt", "kind_clt"):
        assert load(tmp_path / "small.yaml", overrides=prompt, point=name).experiment.attribute.prompts[0].text == "The"
    with pytest.raises(CltdbError, match="attribute.prompts .*: found sae"):
        load(tmp_path / "small.yaml", overrides=prompt, point="kind_sae")


@pytest.mark.parametrize(
    ("overrides", "left"),
    [
        (["train.l0=10"], NAMES[2:]),
        (["train.l0=10", "train.learning_rate=0.001"], NAMES[2:3]),
        (["sweep.train.l0=[7]"], ["small-l0_7-learning_rate_0.001", "small-l0_7-learning_rate_0.003"]),
        (["sweep.train.learning_rate=null"], ["small-l0_5", "small-l0_10"]),
        (["sweep={seed: [0, 1]}"], ["small-seed_0", "small-seed_1"]),
        (["sweep={}"], ["small"]),
        (["name=other", "train.l0=5", "train.learning_rate=0.003"], ["other-l0_5-learning_rate_0.003"]),
        (["train.l0=7", "sweep={train.l0: [5, 7]}"], ["small-l0_7"]),
        (["train.l0=9", "sweep={train.l0: [5, 7]}"], ["small-l0_9"]),
        (["train.l0=9", "sweep.train.l0=[5, 9]", "train.learning_rate=0.001"], ["small-l0_9-learning_rate_0.001"]),
    ],
)
def test_overrides_narrow_and_change_the_grid(tmp_path, overrides, left):
    """In whatever order they are given; a point has the values that its name says."""
    for order in (overrides, overrides[::-1]):
        found = points(tmp_path, SWEEP, *order)
        assert [loaded.experiment.name for loaded in found] == left
        for loaded in found:
            for key, value in (loaded.swept or {}).items():
                *_, section, field = ("spec", *key.split("."))
                of = loaded.experiment if section == "spec" else getattr(loaded.experiment, section)
                assert getattr(of, field) == value


def test_an_override_beside_and_beneath_a_swept_key_holds_for_every_point(tmp_path):
    sweep = "sweep: {train.sparsity: [{coefficient: 1}, {coefficient: 2}], activations.text.0.weight: [1, 2]}\n"
    found = points(tmp_path, sweep, "train.activation=relu", "train.n_features=64")
    assert {loaded.experiment.train.n_features for loaded in found} == {64}
    assert [loaded.experiment.train.sparsity.coefficient for loaded in found] == [1, 1, 2, 2]
    assert [loaded.experiment.activations.text[0].weight for loaded in found] == [1, 2, 1, 2]
    with pytest.raises(CltdbError, match="expected a number from 0 to"):
        points(tmp_path, sweep, "train.activation=relu", "train.sparsity.coefficient=-1")


def test_one_point_is_chosen_by_name(tmp_path):
    points(tmp_path)
    for name in (NAMES[1], NAMES[1].removeprefix("small-")):
        assert load(tmp_path / "small.yaml", point=name).experiment.name == NAMES[1]
    with pytest.raises(CltdbError, match=f"sweep .*small.yaml.: found 4 points; expected one of {NAMES[0]}, .*--point NAME"):
        load(tmp_path / "small.yaml")
    with pytest.raises(CltdbError, match=f"--point gone: found no such point; expected one of {NAMES[0]}"):
        load(tmp_path / "small.yaml", point="gone")
    points(tmp_path, "")
    with pytest.raises(CltdbError, match="the spec has no sweep"):
        load(tmp_path / "small.yaml", point="gone")


def test_a_sweep_without_a_name_says_so_before_it_lists_points(tmp_path):
    (tmp_path / "small.yaml").write_text("sweep: {train.l0: [3, 4]}\n")
    for point in ("zz", "l0_3", None):
        with pytest.raises(CltdbError, match="name") as error:
            load(tmp_path / "small.yaml", point=point)
        assert "None" not in str(error.value) and "no such point" not in str(error.value)


GRIDS = "sweep:\n  - {train.l0: [5, 6], train.kind: [clt, sae]}\n  - {train.l0: [5, 6], train.kind: [plt], train.skip: [true]}\n"
FIRST = [f"small-l0_{l0}-kind_{kind}" for l0 in (5, 6) for kind in ("clt", "sae")]
SECOND = [f"small-l0_{l0}-kind_plt-skip_true" for l0 in (5, 6)]


@pytest.mark.parametrize(
    ("overrides", "left"),
    [
        ([], FIRST + SECOND),
        (["train.l0=6"], FIRST[2:] + SECOND[1:]),
        (["train.kind=sae"], FIRST[1::2]),
        (["train.skip=true", "train.l0=5"], SECOND[:1]),
        (["train.l0=7"], ["small-l0_7-kind_clt", "small-l0_7-kind_sae", "small-l0_7-kind_plt-skip_true"]),
        (["sweep.train.l0=[7]"], ["small-l0_7-kind_clt", "small-l0_7-kind_sae", "small-l0_7-kind_plt-skip_true"]),
        (["sweep.train.skip=null", "train.kind=plt", "train.l0=6"], ["small-l0_6-kind_plt"]),
        (["sweep=[{seed: [0]}, {seed: [1, 2]}]"], ["small-seed_0", "small-seed_1", "small-seed_2"]),
        (["sweep.seed=[0, 1]", "train.kind=sae", "train.l0=5"], ["small-l0_5-kind_sae-seed_0", "small-l0_5-kind_sae-seed_1"]),
    ],
)
def test_several_grids_one_after_the_other(tmp_path, overrides, left):
    assert names(tmp_path, GRIDS, *overrides) == left


def test_a_point_of_a_grid_has_its_own_keys_alone(tmp_path):
    assert points(tmp_path, GRIDS)[-1].swept == {"train.l0": 6, "train.kind": "plt", "train.skip": True}
    assert [loaded.experiment.train.skip for loaded in points(tmp_path, GRIDS)] == [False] * 4 + [True] * 2
    assert {loaded.experiment.train.skip for loaded in points(tmp_path, GRIDS, "train.kind=plt", "train.skip=false")} == {False}


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("sweep: 3\n", r"sweep \(.*small.yaml:5\): found 3; expected keys of the spec with lists"),
        ("sweep: {train.l0: 5}\n", r"sweep.train.l0 \(.*:5\): found 5; expected a list of values; do this: write \[5\]"),
        ("sweep:\n  train:\n    l0: []\n", r"sweep.train.l0 \(.*:7\): found \[\]; expected at least one value"),
        ("sweep:\n\n  train.l0: [5, 6, 5.0]\n", r"sweep.train.l0 \(.*:7\): found 5.0 twice"),
        ("sweep:\n  train.l0: [5]\n  train: {l0: [6]}\n", r"sweep.train.l0 \(.*:7\): found the key twice"),
        ("sweep: {train.deepspeed: [{}], train.deepspeed.bf16: [{}]}\n", r"found train.deepspeed swept too"),
        ("sweep:\n  train.lo: [5]\n", r"train.lo \(.*:6\): found unknown key 'lo'; .*do this: write 'l0'"),
        ("sweep:\n  trian.l0: [5]\n", r"trian \(.*\): found unknown key 'trian'; .*do this: write 'train'"),
        ("sweep:\n  train.kind: [clt, cat]\n", r"train.kind \(.*:6\): found 'cat'; expected 'clt', 'plt' or 'sae'"),
        ("sweep: [{}]\n", r"sweep.0 \(.*:5\): found {}; expected keys of the spec with lists of values; do this: add a key"),
        ("sweep: []\n", r"sweep \(.*:5\): found \[\]; expected keys of the spec with lists"),
        ("sweep:\n  - {seed: [1]}\n  - 3\n", r"sweep \(.*small.yaml:\d\): found 3; expected keys of the spec with lists"),
        ("sweep:\n  - {train.l0: [5]}\n  - {train.l0: [5, 5]}\n", r"sweep.train.l0 \(.*:7\): found 5 twice"),
        ("sweep:\n  - {train.l0: [5]}\n  - {train.l0: [-1]}\n  - {train.l0: [6]}\n", r"train.l0 \(.*:7\): found -1; expected"),
        ("sweep:\n  - {seed: [1]}\n  - {seed: [1]}\n", r"found two points named small-seed_1"),
        ("sweep: {name: [a, b]}\n", r"sweep.name \(.*:5\): found \"name\""),
        ("sweep: {train.kind: [no]}\n", r"found a bare no; expected true, false or a quoted string"),
        ("sweep: {activations.text.3.weight: [1]}\n", r"sweep.activations.text.3.weight .*found no place"),
        ("sweep: {train.l0: [5, '5']}\n", r"train.l0 \(.*:5\): found '5'; expected a number from"),
        ("swep: {train.l0: [5]}\n", r"unknown key 'swep'; .*do this: write 'sweep'"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path, sweep, message):
    with pytest.raises(CltdbError, match=message):
        points(tmp_path, sweep)


@pytest.mark.parametrize("sizes", [[1001], [40, 30], [100] * 15])
def test_more_points_than_anyone_can_train_are_refused_before_they_are_made(tmp_path, sizes):
    keys = ["train.l0", "seed", "train.batch_tokens", "train.warmup_steps", "harvest.top", *(f"train.key{n}" for n in range(10))]
    sweep = "sweep:\n" + "".join(f"  {key}: {list(range(1, n + 1))}\n" for key, n in zip(keys, sizes, strict=False))
    with pytest.raises(CltdbError, match=r"sweep \(.*small.yaml\): found [\d,]+ points .*; expected at most 1,000"):
        points(tmp_path, sweep)
    if len(sizes) == 1:
        assert len(names(tmp_path, sweep, "sweep.train.l0=[1, 2]")) == 2


def test_a_plan_reads_the_records_of_the_workspace_once(tmp_path, monkeypatch):
    from cltdb.engine import workspace

    read = []
    monkeypatch.setattr(workspace.Workspace, "run_records", lambda self: read.append(1) or [])
    assert len(plan_points(points(tmp_path))) == 4 and len(read) == 1


def test_two_points_of_one_name_are_refused():
    with pytest.raises(CltdbError, match="sweep: found two points named small-l0_5"):
        check_names(["small-l0_5", "small-l0_6", "small-l0_5"], shown="sweep")


def test_names_are_readable_allowed_and_apart():
    def name(**swept):
        return point_name("s", {tuple(key.split("__")): value for key, value in swept.items()})

    assert name(train__learning_rate=1e-5, seed=3) == "s-learning_rate_1e-05-seed_3"
    assert name(train__skip=True, explain__features=None) == "s-skip_true-features_null"
    assert name(evaluate__batch_seqs=2, harvest__batch_seqs=3) == "s-evaluate.batch_seqs_2-harvest.batch_seqs_3"
    assert name(model__id="toyworld") == "s-id_toyworld"
    apart = {name(model__id=value) for value in ("a/b", "a b", "a_b", ["a", "b"], {"a": "b"}, "é", "è")}
    assert len(apart) == 7 and all(set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.-") for text in apart)
    long = [name(model__id="x" * 500 + end) for end in "ab"]
    assert len(set(long)) == 2 and max(map(len, long)) < 120

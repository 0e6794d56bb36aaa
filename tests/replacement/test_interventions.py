"""How interventions are written, and where they stand in a prompt."""

import pytest
import torch
from worlds.numbers import N_FEATURES, N_LAYERS, PROMPT, dictionary

from cltdb.errors import CltdbError
from cltdb.replacement.interventions import Addition, Setting, parse_setting, placed, setting_text


@pytest.mark.parametrize(
    "text,expected",
    [
        ("3:120@5=0", Setting(3, 120, 5, "set", 0.0)),
        ("0:7@-1=2.5", Setting(0, 7, -1, "set", 2.5)),
        ("1:2@*=x2", Setting(1, 2, None, "scale", 2.0)),
        ("1:2@3=-1e-1", Setting(1, 2, 3, "set", -0.1)),
        ("1:2@2:5=0", Setting(1, 2, slice(2, 5), "set", 0.0)),
        ("1:2@-3:=x2", Setting(1, 2, slice(-3, None), "scale", 2.0)),
        ("1:2@:-1=0", Setting(1, 2, slice(None, -1), "set", 0.0)),
    ],
)
def test_parse(text, expected):
    assert parse_setting(text) == expected
    assert parse_setting(setting_text(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3:120",
        "3:120@5",
        "a:1@2=0",
        "3:120@5=",
        "3:120@5=nan",
        "3:120@5=xinf",
        "3:120@5=two",
        "3:-1@5=0",
        "3:1@1:2:3=0",
        "3:1@a:=0",
    ],
)
def test_parse_refuses(text):
    with pytest.raises(CltdbError, match="LAYER:FEATURE@POS=VALUE"):
        parse_setting(text)


def test_positions():
    d = dictionary()
    assert [s.position for s in placed([Setting(0, 0, None, "set", 0)], d, 4)] == [1, 2, 3]
    assert placed([Setting(0, 0, -1, "set", 0)], d, 4)[0].position == 3
    for wrong in (
        Setting(0, 0, 0, "set", 0),
        Setting(0, 0, -4, "set", 0),
        Setting(0, 0, 4, "set", 0),
        Setting(N_LAYERS, 0, 1, "set", 0),
        Setting(0, N_FEATURES, 1, "set", 0),
    ):
        with pytest.raises(CltdbError, match="--feature"):
            placed([wrong], d, 4)


@pytest.mark.parametrize(
    "ends,expected",
    [((2, 5), [2, 3, 4]), ((-3, None), [4, 5, 6]), ((None, 3), [1, 2]), ((None, -5), [1]), ((-3, -1), [4, 5]), ((None, None), [*range(1, 7)])],
)  # fmt: skip
def test_a_slice_is_its_positions_without_the_end(ends, expected):
    d = dictionary()
    assert [s.position for s in placed([Setting(0, 0, slice(*ends), "set", 0)], d, 7)] == expected
    vector = [0.0] * 24
    assert [s.position for s in placed([Addition(vector, 0, slice(*ends))], d, 7)] == expected


@pytest.mark.parametrize(
    "ends,shown", [((0, 3), "0:3"), ((3, 3), "3:3"), ((5, 2), "5:2"), ((2, 8), "2:8"), ((-9, None), "-9:"), ((7, None), "7:")]
)
def test_a_slice_of_no_positions_or_beyond_the_prompt_is_refused(ends, shown):
    with pytest.raises(CltdbError, match=f"--feature position: found {shown};"):
        placed([Setting(0, 0, slice(*ends), "set", 0)], dictionary(), 7)


def test_settings_stand_after_the_constant_positions():
    d = dictionary()
    for position, expected in (
        (None, [3, 4, 5, 6]),
        (slice(None, -1), [3, 4, 5]),
        (slice(4, None), [4, 5, 6]),
        (3, [3]),
        (-4, [3]),
    ):
        assert [s.position for s in placed([Setting(0, 0, position, "set", 0)], d, 7, 3)] == expected
    for position, shown in ((2, "2"), (0, "0"), (-5, "-5"), (slice(2, 5), "2:5"), (slice(None, 3), ":3")):
        with pytest.raises(CltdbError, match=f"position: found {shown}; expected .*positions 0 to 2 are constant"):
            placed([Setting(0, 0, position, "set", 0)], d, 7, 3)


def test_slices_that_overlap_set_a_feature_twice():
    with pytest.raises(CltdbError, match="0:1 set twice at position 4"):
        placed([Setting(0, 1, slice(2, 5), "set", 0.0), Setting(0, 1, slice(4, None), "set", 2.0)], dictionary(), 7)


def test_a_feature_is_set_once():
    with pytest.raises(CltdbError, match="0:1 set twice at position 3"):
        placed([Setting(0, 1, None, "set", 0.0), Setting(0, 1, -1, "set", 2.0)], dictionary(), 4)


@pytest.mark.parametrize(
    "setting,found",
    [
        (Setting(0, 3, 1, "set", float("nan")), "nan"),
        (Setting(0, 3, 1, "set", 1e39), "1e\\+39"),
        (Setting(0, 3, 1, "double", 2.0), "'double'"),
        (Setting(0.5, 3, 1, "set", 2.0), "0.5"),
        (Setting(0, 3, -99, "set", 2.0), "-99"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(setting, found):
    with pytest.raises(CltdbError, match=f"found {found};"):
        placed([setting], dictionary(dtype=torch.float32), len(PROMPT))


@pytest.mark.parametrize("vector", [[1.0], [float("nan")] * 24])
def test_a_bad_vector_is_refused(vector):
    with pytest.raises(CltdbError, match="added vector"):
        placed([Addition(vector, 0, 1)], dictionary(), 4)

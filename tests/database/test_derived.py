"""Windows as slices, rows of earlier harvests, and the tables that are made from others."""

import itertools
import json
import math
import random
import shutil
from collections import Counter, defaultdict

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from worlds import tiny_experiment as world
from worlds.tables import contents, load, write_artifact

from cltdb.database import derived, store
from cltdb.database.api import Database
from cltdb.database.export import export
from cltdb.database.load import lacks, load_artifact, unload_artifact
from cltdb.database.store import connect
from cltdb.database.tables import derived_tables

BEST = """
SELECT dict_id, layer, feature, side, explainer, text, score FROM (
    SELECT e.*, coalesce(max(s.score) FILTER (scorer = 'detection'), max(s.score) FILTER (scorer = 'fuzzing'), avg(s.score)) AS score
    FROM explanations AS e LEFT JOIN scores AS s USING (dict_id, layer, feature, side, explainer)
    WHERE e.status = 'ok' AND NOT starts_with(explainer, 'baseline:') GROUP BY ALL)
QUALIFY row_number() OVER (PARTITION BY dict_id, layer, feature ORDER BY side, score DESC NULLS LAST, explainer) = 1 ORDER BY ALL
"""


def is_as_defined(path):
    """Every derived table holds what its definition gives over all that is there now."""
    with connect(path) as connection:
        assert not derived.is_stale(connection)
        known = connection.execute(
            "SELECT DISTINCT dict_id FROM (SELECT dict_id FROM features UNION ALL SELECT dict_id FROM explanations)"
        )
        for (dict_id,) in known.fetchall():
            for name in derived_tables():
                made, there = f"FROM ({derived.definition(name)})", f"FROM {name} WHERE dict_id = $dict_id"
                both = f"SELECT *, 1 AS there {there} UNION ALL SELECT *, -1 {made}"  # DuckDB takes longer for EXCEPT ALL
                unlike = f"SELECT count(*) FROM (SELECT * EXCLUDE there FROM ({both}) GROUP BY ALL HAVING sum(there) <> 0)"
                assert connection.execute(unlike, {"dict_id": dict_id, "first": 0, "last": 99}).fetchone() == (0,), name
    return True


def test_derived_tables_follow_what_is_loaded_and_taken_out(database, tmp_path):
    db = Database(database)
    assert is_as_defined(database)
    best = db.sql("SELECT dict_id, layer, feature, side, explainer, text, score FROM best_explanations ORDER BY ALL")
    assert best.equals(db.sql(BEST)) and best.height == len(world.ALIVE)
    tokens = db.sql("SELECT token, feature, weight FROM token_features WHERE role = 'fires_on' AND layer = 0 ORDER BY ALL")
    assert set(tokens["token"]) == {4} and set(tokens["weight"]) == {1.0}  # position 4 of windows that start at 1
    edges = db.sql("SELECT count(*) AS n FROM edges_into")["n"].item()
    assert edges == db.sql("SELECT count(*) AS n FROM feature_edges")["n"].item()

    later = world.explain_tables(text="fires on 'Spain'")
    load(database, tmp_path, "later", later, started_at="2027-01-01T00:00:00+00:00")
    assert is_as_defined(database)
    assert all("Spain" in text for text in db.sql("SELECT text FROM feature_cards WHERE text IS NOT NULL")["text"])
    unload_artifact(database, key="later")
    assert is_as_defined(database) and db.sql("FROM best_explanations").height == 0


def test_an_edge_has_the_effect_of_its_source_as_features_are_now(tmp_path):
    """Weights 1 and -2 of features 0:0 and 0:1, whose mean activations change with the artifact of features."""
    path, old = tmp_path / "cltdb.duckdb", tmp_path / "old.duckdb"

    def effects(path):
        return Database(path).sql("SELECT effect FROM edges_into ORDER BY source_feature")["effect"].to_list()

    load(path, tmp_path, "edges", {"feature_edges": world.feature_edge_table()})
    assert effects(path) == [None, None]
    for key, mean, year in (("first", 2.0, 2026), ("second", 3.0, 2027)):
        features = [row | {"mean_activation": mean + row["feature"]} for row in world.feature_table()]
        load(path, tmp_path, key, {"features": features}, started_at=f"{year}-01-01T00:00:00+00:00")
        assert effects(path) == [mean, -2 * (mean + 1)] and is_as_defined(path)
    unload_artifact(path, key="second")
    assert effects(path) == [None, None] and is_as_defined(path)

    with store._open(old, write=True) as (connection, _):
        for name in [name for name in store.migrations() if name < "0012"]:
            connection.execute(store.migrations()[name])
            connection.execute("INSERT INTO schema_migrations VALUES (?, ?)", [name, store.now()])
        connection.execute(
            "INSERT INTO features (dict_id, layer, feature, mean_activation) VALUES ('d', 0, 0, 2), ('d', 0, 1, 3)"
        )
        edge = "dict_id, source_layer, source_feature, target_layer, target_feature, virtual_weight"
        connection.execute(
            f"INSERT INTO edges_into ({edge}) VALUES ('d', 0, 0, 1, 1, 1), ('d', 0, 1, 1, 0, -2), ('d', 0, 2, 1, 0, 1)"
        )
    with connect(old, write=True):  # which brings it up to date
        pass
    assert effects(old) == [2.0, -6.0, None]


def test_a_load_that_was_killed_before_the_derived_tables_is_made_good(tmp_path, monkeypatch):
    path = tmp_path / "db.duckdb"
    key, directory = write_artifact(tmp_path / "a", "k", {"features": world.feature_table(), **world.explain_tables()})

    def dies(connection, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr("cltdb.database.derived.stale_pieces", dies)
    with pytest.raises(KeyboardInterrupt):
        load_artifact(path, key=key, directory=directory)
    monkeypatch.undo()
    assert lacks(path, [(key, directory)]) == ([], True)
    assert load_artifact(path, key=key, directory=directory) == 0
    assert lacks(path, [(key, directory)]) == ([], False) and is_as_defined(path)


RANDOM = random.Random(0)
EDGES = [
    (0, s, layer, t, RANDOM.gauss(0, 1), 0.5, 0.2, 0.1)
    for layer in (1, 2)
    for s in range(4)
    for t in range(5)
    if RANDOM.random() < 0.7
]


@pytest.fixture
def in_pieces(tmp_path, monkeypatch):
    """A database with a first artifact and a second one that replaces its rows. Pieces of derived tables have two rows, and the rest of a feature's or
    of a token's."""
    first = {
        **world.train_tables(),
        "features": world.feature_table(),
        "feature_edges": world.feature_edge_table(EDGES[:9]),
        **world.explain_tables(),
    }
    load(tmp_path / "db.duckdb", tmp_path, "first", first)
    promoted = [{"token": token, "value": 1.5 - token / 10} for token in range(8)]
    later = {
        "features": [row | {"mean_activation": 2.0, "top_logits": promoted} for row in world.feature_table()],
        "feature_edges": world.feature_edge_table(EDGES),
        **world.explain_tables(text="fires on 'Spain' and on 'Italy'"),
    }
    monkeypatch.setattr(derived, "PIECE_ROWS", 2)
    monkeypatch.setattr("cltdb.database.load.SMALL_FEATURES", -1)  # all is large
    for name, value in {"SCATTERED_FEATURES": 1, "MOVED_ROWS": 2, "MOVED_AT_ONCE": 12}.items():
        monkeypatch.setattr(derived, name, value)
    return tmp_path / "db.duckdb", write_artifact(tmp_path, "second", later, started_at="2027-01-01T00:00:00+00:00")


def noted(monkeypatch, look):
    """A list to which look(connection) is added whenever a piece of a derived table is put in or moved."""
    states = []

    def with_note(change):
        def changed(connection, piece):
            states.append(look(connection))
            return change(connection, piece)

        return changed

    for name in ("_put", "_move"):
        monkeypatch.setattr(derived, name, with_note(getattr(derived, name)))
    return states


def _all_by_feature(connection):
    """{derived table: {place: rows}}."""
    return {name: _by_feature(connection, name) for name in derived_tables()}


def _by_feature(connection, name):
    layer, feature = derived._columns(name)
    found = {}
    for *place, row in connection.execute(f"SELECT {layer}, {feature}, t::VARCHAR FROM {name} AS t ORDER BY ALL").fetchall():
        found.setdefault(tuple(place), []).append(row)
    return found


def test_while_pieces_are_put_in_each_feature_has_all_its_rows_of_before_or_all_of_the_new(in_pieces, monkeypatch):
    path, (key, directory) = in_pieces
    states = noted(monkeypatch, _all_by_feature)
    load_artifact(path, key=key, directory=directory)
    assert is_as_defined(path)
    with connect(path) as connection:
        states.append(_all_by_feature(connection))
    mixed = {name: 0 for name in derived_tables()}
    for state in states:
        for name in derived_tables():
            before, there, new = states[0][name], state[name], states[-1][name]
            for place in before.keys() | there.keys() | new.keys():
                assert there.get(place) in (before.get(place), new.get(place)), (name, place)
            mixed[name] += there not in (before, new)
    assert mixed["edges_into"] > 3 and mixed["best_explanations"] and mixed["explanation_words"]


def test_rows_of_tokens_are_moved_into_their_order_which_a_kill_between_two_pieces_does_not_end(in_pieces, monkeypatch):
    path, (key, directory) = in_pieces
    lie = "SELECT place, layer, feature FROM token_features"
    move, moved = derived._move, []

    def dies(connection, piece):
        if len(moved) == 3:
            raise KeyboardInterrupt
        moved.append(piece.start)
        return move(connection, piece)

    monkeypatch.setattr(derived, "_move", dies)
    with pytest.raises(KeyboardInterrupt):
        load_artifact(path, key=key, directory=directory)
    assert lacks(path, [(key, directory)]) == ([], True) and is_as_defined(path)
    with connect(path) as connection:
        assert connection.execute(lie).fetchall() != connection.execute(f"{lie} ORDER BY ALL").fetchall()
    monkeypatch.setattr(derived, "_move", lambda connection, piece: moved.append(piece.start) or move(connection, piece))
    load_artifact(path, key=key, directory=directory)
    assert moved == sorted(set(moved)) and len(moved) > 5  # none was moved twice
    assert lacks(path, [(key, directory)]) == ([], False) and is_as_defined(path)
    with connect(path) as connection:
        assert connection.execute(lie).fetchall() == connection.execute(f"{lie} ORDER BY ALL").fetchall()


def test_rows_that_were_read_before_others_came_in_are_not_moved(in_pieces):
    path, (key, directory) = in_pieces
    load_artifact(path, key=key, directory=directory)
    with connect(path, write=True) as connection:
        rows = lambda: connection.execute("FROM token_features ORDER BY ALL").fetchall()  # noqa: E731
        before = rows()
        connection.execute("UPDATE features SET top_logits = top_logits[:1]")
        connection.execute("INSERT INTO scattered_rows SELECT DISTINCT 'token_features', dict_id, 0, 'x' FROM token_features")
        pieces = derived.scattered_pieces(connection)
        derived.mark(connection, "features", "FROM features")
        while stale := derived.stale_pieces(connection):
            for put in stale:
                put(connection)
        there = rows()
        for move in pieces:
            move(connection)
        assert rows() == there != before
        derived.refresh(connection)
    assert is_as_defined(path)


def test_a_load_killed_between_two_pieces_goes_on_with_the_next(in_pieces, monkeypatch, tmp_path):
    path, (key, directory) = in_pieces
    states = noted(monkeypatch, lambda _: None)
    whole, put = tmp_path / "whole.duckdb", derived._put
    shutil.copy(path, whole)
    load_artifact(whole, key=key, directory=directory)
    n_all, wanted = len(states), contents(whole)

    def dies(connection, piece):
        if len(states) == n_all + 4:
            raise KeyboardInterrupt
        return put(connection, piece)

    monkeypatch.setattr(derived, "_put", dies)
    with pytest.raises(KeyboardInterrupt):
        load_artifact(path, key=key, directory=directory)
    assert lacks(path, [(key, directory)]) == ([], True)
    monkeypatch.setattr(derived, "_put", put)
    load_artifact(path, key=key, directory=directory)
    assert len(states) == 2 * n_all  # none was made twice
    assert contents(path) == wanted and is_as_defined(path)


def test_rows_that_were_read_before_their_group_was_marked_again_are_not_put_in(in_pieces):
    path, _ = in_pieces
    before = contents(path)
    with connect(path, write=True) as connection:
        connection.execute("DELETE FROM feature_edges WHERE target_layer = 2")
        derived.mark(connection, "feature_edges", "FROM (SELECT 'tiny-clt-0123abcd' AS dict_id, 1 AS target_layer)")
        [*pieces] = derived.stale_pieces(connection)
        pieces[0](connection)
        connection.execute("UPDATE feature_edges SET twera = 7")
        derived.mark(connection, "feature_edges", "FROM feature_edges")
        pieces[1](connection)
    assert contents(path)["edges_into"] == before["edges_into"]
    with connect(path, write=True) as connection:
        derived.refresh(connection)
    assert is_as_defined(path) and contents(path)["edges_into"] != before["edges_into"]


def test_a_load_of_what_is_there_takes_no_lock_of_a_writer(database, artifacts, monkeypatch):
    opened = []
    real = store._open

    def noted(path, *, write, **options):
        opened.append(write)
        return real(path, write=write, **options)

    monkeypatch.setattr(store, "_open", noted)
    for key, directory in artifacts:
        assert load_artifact(database, key=key, directory=directory) == 0
    assert opened == [False] * len(artifacts)


def test_a_context_is_its_slice_of_the_text_with_zeros_where_the_feature_is_silent(tmp_path):
    text = {"dict_id": "d", "sequence": [3, 5], "tokens": [[10, 11, 12, 13], [20, 21, 22, 23]]}
    window = {
        "dict_id": "d", "layer": 0, "feature": 0, "band": "top", "rank": 0, "document": 1, "sequence": 5, "start": 1, "position": 2,
        "length": 3, "offsets": [1, 2], "activations": [2.5, 1.0], "max_activation": 2.5, "peak_token": 22,
    }  # fmt: skip
    tables = {"harvested_text": pa.table({**text, "dict_id": ["d", "d"]}), "windows": [window]}
    load(tmp_path / "db.duckdb", tmp_path / "a", "k", tables)
    row = Database(tmp_path / "db.duckdb").contexts("d").row(0, named=True)
    assert row["tokens"] == [21, 22, 23] and row["activations"] == [0.0, 2.5, 1.0]
    assert not np.signbit(row["activations"]).any()


def test_windows_of_an_earlier_harvest_are_the_same_from_its_artifact_and_from_an_old_database(tmp_path):
    rng, old, new = np.random.default_rng(0), tmp_path / "old.duckdb", tmp_path / "new.duckdb"
    contexts = []
    for rank, length in enumerate((3, 1, 5)):
        dense = np.where(rng.random(length) < 0.5, rng.random(length), -0.0).astype(np.float32)
        peak = int(dense.argmax())
        contexts.append(
            {
                "dict_id": "d", "layer": 0, "feature": 0, "band": "top", "rank": rank, "document": 1, "sequence": rank, "start": 2,
                "position": 2 + peak, "label": None, "tokens": rng.integers(0, 99, length).tolist(), "activations": dense.tolist(),
                "max_activation": float(dense[peak]),
            }
        )  # fmt: skip
    key, directory = write_artifact(tmp_path / "a", "k", {"contexts": contexts})
    with store._open(old, write=True) as (connection, _):
        for name in [name for name in store.migrations() if name < "0007"]:
            connection.execute(store.migrations()[name])
            connection.execute("INSERT INTO schema_migrations VALUES (?, ?)", [name, store.now()])
        connection.execute(
            "INSERT INTO contexts BY NAME SELECT *, 'k' AS artifact_key FROM read_parquet(?)",
            [str(directory / "tables/contexts/part.parquet")],
        )
        connection.execute("INSERT INTO loaded_artifacts VALUES ('k', '2026-01-01T00:00:00.000000')")
        connection.execute("INSERT INTO loaded_parts VALUES ('k', 'contexts/part', 3, now()::TIMESTAMP, true, false)")
        connection.execute("INSERT INTO features (dict_id, layer, feature) VALUES ('d', 0, 0)")
    load_artifact(new, key=key, directory=directory)
    assert load_artifact(old, key=key, directory=directory) == 0
    assert contents(old)["windows"] == contents(new)["windows"] and contents(old)["loaded_parts"] == contents(new)["loaded_parts"]
    assert contents(old)["token_features"] == contents(new)["token_features"] != []
    for row, written in zip(Database(old).contexts("d").iter_rows(named=True), contexts, strict=True):
        assert row["tokens"] == written["tokens"] and row["activations"] == written["activations"]
        assert (
            Database(old).sql("FROM windows").row(written["rank"], named=True)["peak_token"]
            == written["tokens"][written["position"] - 2]
        )
    assert is_as_defined(old)


def tokens_before_peaks(windows, texts):
    """{(layer, feature): {token: share}} of role follows, window by window: what the comments of token_features say."""
    seen = defaultdict(list)
    for row in sorted(windows, key=lambda row: row["rank"]):
        if row["band"] == "top" and row["rank"] < 64:
            tokens = row["tokens"] or texts[row["sequence"]][row["start"] : row["start"] + row["length"]]
            peak = row["position"] - row["start"]
            seen[row["layer"], row["feature"]].append(set(tokens[max(0, peak - 8) : peak]))
    found = {}
    for (layer, feature), before in seen.items():
        strongest = [windows[0] for (of, _), windows in seen.items() if of == layer]
        shares = {token: sum(token in one for one in before) / len(before) for token in set.union(*before)}
        common = {token: max(1, sum(token in one for one in strongest)) / len(strongest) for token in shares}
        kept = [token for token, share in shares.items() if share >= 0.5 and share >= 2 * common[token]]
        kept = [token for token in kept if shares[token] * len(before) > 1]
        kept.sort(key=lambda token: (-round(shares[token] * math.log(shares[token] / common[token]), 9), token))
        found[layer, feature] = {token: shares[token] for token in kept[:5]}
    return found


def tokens_beside_peaks(windows, texts, step):
    """{(layer, feature, token): share} of role right_after (step -1) or right_before (step 1), window by window."""
    seen, n_windows = defaultdict(Counter), Counter()
    for row in windows:
        if row["band"] == "top" and row["rank"] < 64:
            tokens = row["tokens"] or texts[row["sequence"]][row["start"] : row["start"] + row["length"]]
            place, feature = row["position"] - row["start"] + step, (row["layer"], row["feature"])
            n_windows[feature] += 1
            seen[feature].update(tokens[place : place + 1] if place >= 0 else [])
    commonest = {of: sorted(some.items(), key=lambda pair: (-pair[1], pair[0]))[:8] for of, some in seen.items()}
    return {(*of, token): n / n_windows[of] for of, some in commonest.items() for token, n in some if n > 1}


def test_tokens_before_peaks_are_those_of_windows_read_one_by_one(tmp_path):
    """Windows of the text and of an earlier harvest, which have tokens of their own, some with a peak at once, some of rank 64 and later."""
    rng, path = random.Random(0), tmp_path / "db.duckdb"
    texts = [[rng.randrange(40) for _ in range(30)] for _ in range(300)]
    windows = []
    for layer, feature in itertools.product(range(2), range(14)):
        for band, rank in [*(("top", rank) for rank in range(rng.choice([1, 2, 9, 70]))), ("q0", 0)]:
            sequence, start = rng.randrange(300), rng.randrange(12)
            position = start + rng.randrange(12) if rank % 3 else start + rng.choice([0, 17])  # an end of the window
            own = [rng.randrange(40) for _ in range(18)] if feature % 5 == 0 else None
            for token in range(feature % 8):  # a habit of the feature and of its like
                said, first = (own, start) if own else (texts[sequence], 0)
                if position - token - 1 >= start and (rng.random() < 0.9 or rank >= 64):
                    said[position - token - 1 - first] = 40 + token + feature // 4 * 7
            windows.append(
                {"layer": layer, "feature": feature, "band": band, "rank": rank, "sequence": sequence}
                | {"start": start, "position": position, "length": 18, "tokens": own}
            )  # fmt: skip
    for row in windows:
        row["peak_token"] = (row["tokens"] or texts[row["sequence"]][row["start"] :])[row["position"] - row["start"]]
    text = [{"sequence": sequence, "tokens": tokens} for sequence, tokens in enumerate(texts)]
    of = lambda rows: [{"dict_id": "d", **row} for row in rows]  # noqa: E731
    load(path, tmp_path, "k", {"harvested_text": of(text), "windows": of(windows)})
    rows = Database(path).sql("SELECT layer, feature, token, weight FROM token_features WHERE role = 'follows'").rows()
    expected = tokens_before_peaks(windows, texts)
    assert {row[:3] for row in rows} == {(*place, token) for place, tokens in expected.items() for token in tokens}
    assert all(weight == np.float32(expected[layer, feature][token]) for layer, feature, token, weight in rows)
    for role, step in (("right_after", -1), ("right_before", 1)):
        sql = f"SELECT layer, feature, token, weight FROM token_features WHERE role = '{role}' ORDER BY ALL"
        beside = {tuple(place): weight for *place, weight in Database(path).sql(sql).iter_rows()}
        assert beside == {key: np.float32(share) for key, share in tokens_beside_peaks(windows, texts, step).items()}
        assert len(beside) > 20
    n_of = [len(tokens) for tokens in expected.values()]
    assert len(rows) > 20 and max(n_of) == 5 and min(n_of) == 0 and is_as_defined(path)


def test_costs_of_scores_are_what_details_say_in_a_database_of_before_and_in_its_export(tmp_path):
    path, folder = tmp_path / "cltdb.duckdb", tmp_path / "exported"
    details = [
        None, "{", "[1]", '{"judge": "rule"}', '{"prompt_tokens": 7, "cost_usd": null}', '{"prompt_tokens": 20, "completion_tokens": 3, "cost_usd": 0.1}',
        '{"prompt_tokens": 5, "completion_tokens": 0, "cost_usd": 0}', '{"within": {"cost_usd": 9}, "cost_usd": 0.7}', '{"cost_usd": 1e-7}',
    ]  # fmt: skip
    rng, name = random.Random(0), ("layer", "feature", "explainer", "scorer")
    rows = [
        dict(zip(name, key, strict=True))
        | {"dict_id": "d", "side": "input", "score": rng.choice([None, 0.5]), "n_failed": rng.choice([None, 0, 2]), "detail": rng.choice(details)}
        for key in itertools.product(range(3), range(20), ("llm", "rules"), ("detection", "fuzzing"))
    ]  # fmt: skip
    rows += [row | {"explainer": "unknown", "detail": details[rng.randrange(4)]} for row in rows[:3]]
    load(path, tmp_path, "k", {"scores": rows})
    expected = []
    for explainer, scorer in sorted({(row["explainer"], row["scorer"]) for row in rows}):
        of_both = [row for row in rows if (row["explainer"], row["scorer"]) == (explainer, scorer)]
        said = [json.loads(row["detail"] or "null") if row["detail"] != "{" else None for row in of_both]
        said = [one if isinstance(one, dict) else {} for one in said]
        known = [one for one in zip(of_both, said, strict=True) if one[1].get("cost_usd") is not None]
        n_ok = sum(row["score"] is not None for row, _ in known)
        cost = math.fsum(one["cost_usd"] for _, one in known) if known else None
        expected.append(
            {
                "dict_id": "d", "explainer": explainer, "scorer": scorer, "n_scores": len(of_both),
                "n_ok": sum(row["score"] is not None for row in of_both), "n_failed_windows": sum(row["n_failed"] or 0 for row in of_both),
                "prompt_tokens": sum(one.get("prompt_tokens", 0) for one in said) or None,
                "completion_tokens": sum(one.get("completion_tokens", 0) for one in said) or None, "cost_usd": pytest.approx(cost),
                "n_unknown_cost": len(of_both) - len(known), "cost_per_score": pytest.approx(cost / n_ok if n_ok else None),
            }
        )  # fmt: skip
    expected.sort(key=lambda row: -(row["cost_usd"].expected or 0))
    made = Database(path).query("scoring_costs")
    assert made.to_dicts() == expected

    with connect(path, write=True) as connection:
        connection.execute("DROP TABLE score_costs; DELETE FROM schema_migrations WHERE name LIKE '0067%'")
    with connect(path, write=True):  # which brings it up to date
        pass
    assert Database(path).query("scoring_costs").equals(made) and contents(path)["score_costs"]
    export(path, folder)
    assert Database(folder).query("scoring_costs").equals(made)
    description = json.loads((folder / "export.json").read_text())
    del description["tables"]["score_costs"]
    (folder / "export.json").write_text(json.dumps(description))
    assert Database(folder).query("scoring_costs").equals(made)


def test_a_judge_is_who_its_score_says_in_a_database_of_before_and_in_its_export(tmp_path):
    """Read once, as scores are loaded. A name within a text is no judge."""
    path, folder = tmp_path / "cltdb.duckdb", tmp_path / "exported"
    told = {
        '{"n": 1, "judge": "rule"}': "rule", '{"judge":"rule"}': "rule", '{"judge": "someone else"}': "someone else", '{"judge": null}': None,
        '{"why": "not \\"judge\\": \\"rule\\""}': None, "{": None, "[1]": None, None: None,
    }  # fmt: skip
    key = {"dict_id": "d", "layer": 0, "side": "input", "explainer": "llm", "scorer": "fuzzing"}
    load(
        path, tmp_path, "k", {"scores": [key | {"feature": i, "score": 0.5, "n": 9, "detail": one} for i, one in enumerate(told)]}
    )
    judges = "SELECT judge FROM scores ORDER BY feature"
    assert Database(path).sql(judges)["judge"].to_list() == list(told.values())
    found = Database(path).query("explainers_compared")
    assert set(found.select("judge", "n").rows()) == {("rule", 2), ("someone else", 1), (None, 5)}
    assert found.filter(judge="someone else").select("ci_low", "ci_high").row(0) == (None, None), "one score has no interval"

    with connect(path, write=True) as connection:
        connection.execute("ALTER TABLE scores DROP COLUMN judge; DELETE FROM schema_migrations WHERE name LIKE '0069%'")
    with connect(path, write=True):  # which brings it up to date
        pass
    assert Database(path).sql(judges)["judge"].to_list() == list(told.values())
    export(path, folder)
    assert Database(folder).sql(judges)["judge"].to_list() == list(told.values())
    for file in (folder / "scores").glob("**/*.parquet"):  # of an earlier cltdb
        pl.read_parquet(file, hive_partitioning=False).drop("judge").write_parquet(file)
    description = json.loads((folder / "export.json").read_text())
    description["tables"]["scores"]["columns"].remove("judge")
    for facts in description["tables"].values():
        del facts["files"], facts["bytes"]
    (folder / "export.json").write_text(json.dumps(description))
    assert Database(folder).sql(judges)["judge"].to_list() == list(told.values())


def test_windows_are_counted_where_the_harvest_did_not_count_them(tmp_path):
    path, counted = tmp_path / "cltdb.duckdb", [(None, None), (None, None), (7, 5), (7, None), (None, 5), (0, 0)]
    features = [
        {
            "dict_id": "d",
            "layer": 0,
            "feature": i,
            "density": 0.1,
            "dead": False,
            "n_contexts": n_contexts,
            "n_documents": n_documents,
        }
        for i, (n_contexts, n_documents) in enumerate(counted)
    ]
    windows = [  # two of one place, three places, two documents
        {
            "dict_id": "d", "layer": 0, "feature": i, "band": band, "rank": 0, "document": sequence // 2, "sequence": sequence, "start": 0,
            "position": 1, "length": 2,
        }
        for i in (1, 2, 3, 4)
        for band, sequence in (("top", 0), ("q0", 0), ("q1", 1), ("q2", 2))
    ]  # fmt: skip
    load(path, tmp_path, "k", {"features": features, "windows": windows})
    found = Database(path).sql("SELECT n_contexts, n_documents FROM window_counts ORDER BY feature").rows()
    assert found == [(0, 0), (3, 2), (7, 5), (7, 0), (3, 5), (0, 0)]

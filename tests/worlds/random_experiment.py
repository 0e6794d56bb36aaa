"""A random experiment as rows: a CLT of 3 layers with 12 features each, its harvest, explanations and graphs, and a small PLT of an
earlier cltdb (windows that bring their tokens, features that do not count them). Whoever tests a query computes from these rows."""

import random
from itertools import combinations, product
from math import log, log2

from cltdb.annotations.log import Log
from cltdb.annotations.operations import GRAPH
from cltdb.database.annotated import save_events
from cltdb.database.load import save_records
from worlds.tables import graph, load, model, rows

DICT, OLD = "random-clt-0123abcd", "random-plt-4567cdef"
LAYERS, FEATURES, SEQUENCES, CONTEXT = 3, 12, 30, 12
WORDS = ["<bos>", "Paris", " paris", "x", *(f" w{i}" for i in range(16))]
LABELS = ("en", "fr", None)
TOKENS = {"en": 4000, "fr": 900, "de": 300}
"""Of each label in the harvest of DICT."""
OF_ALL_LABELS = (DICT, 1, 5)
"""A feature that fires on all labels at one rate."""
BANDS = {"top": 5, "q0": 2, "q1": 2}


def rows_of(seed=0):
    """{table: rows} of all that is in it but the text in the earlier form."""
    rng = random.Random(seed)
    tables = {
        **model("toy", WORDS, n_layers=LAYERS, d_model=8),
        "dictionaries": [_dictionary(DICT, "clt", LAYERS, FEATURES), _dictionary(OLD, "plt", 1, 10)],
        "harvested_text": [
            {"dict_id": DICT, "sequence": s, "tokens": [rng.randrange(len(WORDS)) for _ in range(CONTEXT)]}
            for s in range(SEQUENCES)
        ],
    }
    tables["features"] = [_feature(rng, DICT, *key) for key in product(range(LAYERS), range(FEATURES))]
    tables["features"] += [_feature(rng, OLD, 0, feature) for feature in range(10)]
    tables["windows"] = [row for feature in tables["features"] if not feature["dead"] for row in _windows(rng, feature, tables)]
    _count_windows(tables)
    tables["feature_labels"] = [
        row for feature in tables["features"] for row in _profile(random.Random(str(key_of(feature))), feature)
    ]
    tables["metrics"] = list(_metrics(random.Random(seed)))
    tables["feature_edges"] = _feature_edges(rng) + _edges_through_heads(random.Random(seed))
    tables["input_edges"] = _input_edges(random.Random(seed))
    tables["pullback_overlaps"] = _pullback_overlaps(random.Random(seed))
    tables["feature_neighbours"] = _neighbours(rng)
    tables["explanations"], tables["scores"] = _explanations(rng, tables["features"])
    tables["requests"] = [_request(random.Random(number), number) for number in range(60)]
    tables |= _groups(random.Random(seed)) | _matches(random.Random(seed))
    tables["isolation"] = list(_isolation(random.Random(seed)))
    for number in range(6):
        for table, content in _graph(rng, f"graph-{number}", [DICT, DICT, DICT, DICT, DICT, OLD][number]).items():
            tables[table] = tables.get(table, []) + content
    return tables


def build(path, folder, tables):
    """A database at `path` of these rows, by way of artifacts in `folder`; the PLT's harvest is one that an earlier cltdb wrote."""
    old = [row for row in tables["windows"] if row["dict_id"] == OLD]
    earlier = [
        {name: row[name] for name in row if name not in ("length", "offsets", "peak_token", "activations")} | _dense(row)
        for row in old
    ]
    counted = ("n_contexts", "n_documents")
    features = [{name: row[name] for name in row if name not in counted} for row in tables["features"] if row["dict_id"] == OLD]
    new = {name: content for name, content in tables.items() if name not in ("models", "vocabulary")}
    new |= {name: [row for row in new[name] if row["dict_id"] == DICT] for name in ("features", "windows")}
    load(path, folder, "model-key", {name: tables[name] for name in ("models", "vocabulary")})
    load(path, folder, "all-key", new)
    load(path, folder, "old-key", {"features": features, "contexts": earlier})
    save_records(path, experiments=EXPERIMENTS, stage_runs=STAGE_RUNS)
    save_events(path, Log(folder, GRAPH, "graph-1").append([{"op": "pin", "nodes": [0, 1]}]))


def _dictionary(dict_id, kind, n_layers, n_features):
    return {
        "dict_id": dict_id,
        "experiment": "random",
        "model_id": "toy",
        "kind": kind,
        "n_layers": n_layers,
        "n_features": n_features,
    }


def _feature(rng, dict_id, layer, feature):
    density = 0.0 if rng.random() < 0.15 else 10 ** rng.uniform(-4, -0.3)
    promoted = sorted(rng.sample(range(len(WORDS)), 4))
    top_logits = sorted(({"token": token, "value": rng.uniform(0, 2)} for token in promoted), key=lambda row: -row["value"])
    bins = [{"low": 2.0**power, "n": rng.randrange(1, 50)} for power in range(-2, 3)]
    return {
        "dict_id": dict_id, "layer": layer, "feature": feature, "density": density, "dead": density == 0,
        "max_activation": rng.uniform(1, 8), "mean_activation": rng.uniform(0.1, 1), "threshold": 0.1, "encoder_norm": 1.0,
        "decoder_norms": [rng.random() for _ in range(LAYERS - layer if dict_id == DICT else 1)],
        **dict.fromkeys(("top_logits", "bottom_logits", "top_embeddings", "bottom_embeddings"), top_logits),
        **({"histogram": bins if density else [], "std_activation": 0.5, "lens_logits": top_logits[1:]} if dict_id == DICT else {}),
    }  # fmt: skip


def key_of(row):
    return row["dict_id"], row["layer"], row["feature"]


def _profile(rng, feature):
    """Rows of feature_labels of a feature of DICT that fires; what they say of it as a whole is put into its own row."""
    if feature["dict_id"] != DICT:
        return []
    most = sum(one["n"] for one in feature["histogram"]) // len(TOKENS)
    firings = {label: rng.choice((0, rng.randrange(1, most + 1))) if feature["density"] else 0 for label in TOKENS}
    if key_of(feature) == OF_ALL_LABELS:
        firings = {label: n // 100 for label, n in TOKENS.items()}
    rates = {label: n / TOKENS[label] for label, n in firings.items()}
    matched = {label: rate * rng.choice((0.1, 0.9)) for label, rate in rates.items()}
    feature |= {"label_information_bits": information(rates), "label_information_matched_bits": information(matched)}
    if not any(firings.values()):
        return []
    shares = {label: rate / sum(rates.values()) for label, rate in rates.items()}
    feature["label_entropy"] = -sum(p * log(p) for p in shares.values() if p) / log(len(TOKENS))
    return [
        {
            **dict(zip(("dict_id", "layer", "feature"), key_of(feature), strict=True)),
            **{"label": label, "tokens": TOKENS[label], "firings": n, "mass": n / 4, "rate": rates[label]},
            **{"matched_rate": matched[label], "share": shares[label]},
        }
        for label, n in firings.items()
    ]


def information(rates):
    def coin(p):
        return -sum(q * log2(q) for q in (p, 1 - p) if 0 < q < 1)

    return coin(sum(rates.values()) / len(rates)) - sum(map(coin, rates.values())) / len(rates)


def _metrics(rng):
    """Of an evaluation of DICT: of all text and of each label, all MLPs replaced; with one MLP replaced, of all text."""
    names = ("fvu", "l0", "ce_original", "ce_replacement", "ce_recovered", "kl_nats", "top1_agreement")
    for label, variant, layer in [(label, None, layer) for label in (None, *TOKENS) for layer in (None, 0, 1)] + [
        (None, "single", 1)
    ]:
        for name in ("fvu", "l0") if layer is not None and not variant else (*names, "tokens") if label else names:
            value = TOKENS[label] if name == "tokens" else rng.random()
            row = {"dict_id": DICT, "stage": "evaluate", "step": 0, "layer": layer, "name": name, "value": float(value)}
            yield row | {"variant": variant, "label": label}
    rng = random.Random(rng.random())
    for scope in ("source", "target"):
        for layer in (None, 0, 1):
            for name in ("mean", "mean_square", "p99", "max", "random_mean", "random_mean_square", "welch_rms"):
                low, value, high = sorted(rng.random() for _ in range(3))
                row = {
                    "dict_id": DICT,
                    "stage": "evaluate",
                    "step": 0,
                    "layer": layer,
                    "value": value,
                    "variant": None,
                    "label": None,
                }
                interval = {} if "_" in name and name != "mean_square" else {"ci_low": low, "ci_high": high}
                yield row | {"name": f"decoder_cosine_{scope}_{name}"} | interval


def _matches(rng):
    """Of layer 0 of DICT with OLD, rows of feature_matches in no order, and of dictionary_matches of it and of all layers."""
    pair, found = {"dict_a": DICT, "dict_b": OLD}, []
    order = rng.sample(range(FEATURES), FEATURES)
    partners = dict(zip(order[:5], rng.sample(range(10), 5), strict=True))
    found += [("matched", a, b) for a, b in partners.items()]
    found += [
        (kind, a, rng.choice(list(partners.values())) if kind == "merged" else None)
        for a, kind in zip(order[5:], ["merged"] * 3 + ["vanished"] * 4, strict=True)
    ]
    alone = sorted(set(range(10)) - set(partners.values()))
    found += [("split", rng.choice(order[:2]), b) for b in alone[:3]] + [("appeared", None, b) for b in alone[3:]]
    features = [
        pair
        | {"layer_a": None if a is None else 0, "feature_a": a, "layer_b": None if b is None else 0, "feature_b": b}
        | {"decoder_cosine": rng.uniform(0, 1), "encoder_cosine": None if None in (a, b) else rng.uniform(0, 1), "relation": kind}
        for kind, a, b in found
    ]
    ends = ("share_{}_low", "share_{}", "share_{}_high")
    numbers = ("control_share", "highest_a", "highest_b", "control_highest")
    totals = [
        pair
        | {"layer": layer, "matched_by": "decoder", "above": above, "n_a": 12, "n_b": 10, "n_matched": 5, "n_tokens": 100}
        | {
            name.format(side): value
            for side in "ab"
            for name, value in zip(ends, sorted(rng.random() for _ in ends), strict=True)
        }
        | {name: rng.random() for name in numbers}
        for layer in (0, None)
        for above in (0.7, 0.9)
    ]
    return {"feature_matches": features, "dictionary_matches": totals}


def _windows(rng, feature, tables):
    texts = {row["sequence"]: row["tokens"] for row in tables["harvested_text"]}
    favourite = rng.choice(LABELS)
    few = rng.random() < 0.3
    for band, n in BANDS.items():
        for rank in range(n):
            sequence = rng.randrange(3 if few else SEQUENCES)
            length = rng.randrange(2, 7)
            start = rng.randrange(CONTEXT - length + 1)
            offsets = sorted(rng.sample(range(length), rng.randrange(1, length + 1)))
            activations = [rng.randrange(1, 64) / 8 for _ in offsets]
            peak = max(range(len(offsets)), key=lambda i: activations[i])
            position = start + offsets[peak]
            yield {
                **{name: feature[name] for name in ("dict_id", "layer", "feature")}, "band": band, "rank": rank,
                "document": sequence // 2, "sequence": sequence, "start": start, "position": position, "length": length,
                "label": favourite if rng.random() < 0.7 else rng.choice(LABELS), "offsets": offsets, "activations": activations,
                "max_activation": activations[peak], "peak_token": texts[sequence][position],
                "tokens": texts[sequence][start : start + length] if feature["dict_id"] == OLD else None,
            }  # fmt: skip


def _dense(row):
    values = dict(zip(row["offsets"], row["activations"], strict=True))
    return {"activations": [values.get(place, 0.0) for place in range(row["length"])]}


def _count_windows(tables):
    for feature in tables["features"]:
        key = ("dict_id", "layer", "feature")
        own = [row for row in tables["windows"] if all(row[name] == feature[name] for name in key)]
        feature["n_contexts"] = len({(row["sequence"], row["position"]) for row in own})
        feature["n_documents"] = len({row["document"] for row in own})


def _feature_edges(rng):
    places = list(product(range(LAYERS), range(FEATURES)))
    pairs = [(s, t) for s in places for t in places if s[0] < t[0] and rng.random() < 0.3]
    values = [
        (
            *s,
            *t,
            rng.choice([0.5, -0.5, rng.gauss(0, 1)]),
            rng.gauss(0, 1),
            rng.choice([0.25, rng.gauss(0, 1)]),
            rng.random() / 50,
        )
        for s, t in pairs
    ]
    names = "source_layer source_feature target_layer target_feature virtual_weight era twera coactivation"
    return rows(names, values, dict_id=DICT)


def _edges_through_heads(rng):
    """Stronger than those along the residual stream, which queries of these leave out."""
    found = [
        (0, i, target, j, f"L{rng.randrange(1, target + 1)}H{rng.randrange(3)}", rng.gauss(0, 9))
        for target in range(1, LAYERS)
        for i, j in product(range(FEATURES), range(FEATURES))
        if rng.random() < 0.2
    ]
    return rows("source_layer source_feature target_layer target_feature via virtual_weight", found, dict_id=DICT)


def _input_edges(rng):
    edges = [
        {
            "dict_id": DICT,
            "layer": layer,
            "feature": feature,
            "kind": kind,
            "input": number,
            "via": via,
            "virtual_weight": rng.uniform(-2, 2),
        }
        for layer, feature in product(range(LAYERS), range(FEATURES))
        for kind, number, via in product(("position", "token"), range(3), ("L0H1", "L0H2", None))
        if (kind, via) != ("token", None)
    ]
    return [edge for edge in edges if rng.random() < 0.5]


def _pullback_overlaps(rng):
    return [
        {
            "dict_id": DICT, "layer": layer, "feature": feature, "route": route, "k": k, "overlap": rng.randrange(k + 1) / k,
            "control": rng.randrange(k + 1) / k / 2, "n_tokens": rng.randrange(1, 100),
        }
        for layer, feature, route, k in product(range(1, LAYERS), range(FEATURES), ("heads", "residual"), (10, 20))
        if rng.random() < 0.8
    ]  # fmt: skip


def _neighbours(rng):
    found = []
    for layer, feature in product(range(LAYERS), range(FEATURES)):
        others = rng.sample([other for other in range(FEATURES) if other != feature], 4)
        cosines = sorted((rng.random() for _ in others), reverse=True)
        found += [(layer, feature, rank, *pair) for rank, pair in enumerate(zip(others, cosines, strict=True))]
    return rows("layer feature rank neighbour cosine", found, dict_id=DICT)


def _explanations(rng, features):
    """Some features have none; explainers rules and llm and a baseline; some fail, some scores have no value."""
    explanations, scores = [], []
    for feature in features:
        key = {name: feature[name] for name in ("dict_id", "layer", "feature")}
        for explainer in ("rules", "llm", "baseline:shuffled") if rng.random() < 0.7 else ():
            row = key | {"side": "input", "explainer": explainer}
            status = "ok" if explainer != "llm" else rng.choice(["ok", "ok", "failed", "skipped_budget", "too_few_contexts"])
            paid = {"model": "gpt", "prompt_tokens": 100, "completion_tokens": 5, "cost_usd": rng.choice([0.5, 0.25, None])}
            text = f"{explainer}: {rng.choice(WORDS)} of {rng.randrange(9)}" if status == "ok" else None
            said = {"status": status, "text": text, "error": None if status == "ok" else f"because {status}"}
            explanations.append(row | said | (paid if explainer == "llm" else {"model": "cltdb-rules/v1", "cost_usd": 0.0}))
            for scorer in ("detection", "fuzzing") if status == "ok" else ():
                score = None if rng.random() < 0.1 else rng.choice([0.5, rng.random()])
                judge = {"llm": "words" if feature["feature"] % 2 else "language model"}.get(explainer, "rule")
                detail = f'{{"prompt_tokens": 20, "completion_tokens": 2, "cost_usd": 0.125, "judge": "{judge}", "error": %s}}'
                n_failed = rng.choice([0, 0, 2])
                said = {"score": score, "n": 40, "n_failed": n_failed, "detail": detail % ('"no answer"' if n_failed else "null")}
                scores.append(row | {"scorer": scorer} | said)
    return explanations, scores


def _request(rng, number):
    status = rng.choice(["ok", "ok", "ok", "unusable", "failed", "skipped_budget"])
    row = {"dict_id": DICT, "request_id": f"{number:064x}", "purpose": rng.choice(["explain:llm", "detection"]), "model": "gpt"}
    row |= {"status": status, "reused": False, "error": None if status == "ok" else rng.choice(["late", "refused"])}
    if status in ("ok", "unusable"):
        took = {"prompt_tokens": rng.randrange(100), "completion_tokens": rng.randrange(9), "seconds": rng.random()}
        row |= took | {"cost_usd": rng.choice([0.5, 0.25, None]), "attempts": rng.randrange(1, 4), "reused": rng.random() < 0.3}
    return row


def _groups(rng):
    """A comparison of two labels with targets, and one of three without; places without a value."""
    prompts, overlaps = [], []
    for number, labels in enumerate((("de", "fr"), ("de", "en", "fr"))):
        same = {"groups_id": f"random-groups-{number}", "dict_id": DICT}
        for concept, label in product(("hot", "cold", "wet"), labels):
            target = rng.randrange(len(WORDS)) if number == 0 else None
            said = {
                "concept": concept,
                "kind": None if number else "opposite",
                "label": label,
                "prompt": f"{concept} in {label}",
                "tokens": [0, *rng.sample(range(9), rng.randrange(2, 5))],
            }
            said |= {"target": target and WORDS[target], "target_token": target, "top_token": rng.choice([target or 1, 2])}
            said |= {"probability": rng.random() if number == 0 else None, "replacement_score": rng.random()}
            of_layers = {"n_active": [rng.randrange(9) for _ in range(LAYERS)]}
            of_layers |= {name: [rng.random() for _ in range(LAYERS)] for name in ("feature_influence", "error_influence")}
            prompts.append(same | said | of_layers)
        ways = product(range(LAYERS), [(None, None), *combinations(labels, 2)], ("free", "end"), ("none", "influence"))
        for layer, (label_a, label_b), keyed_by, weighting in ways:
            way = {"layer": layer, "label_a": label_a, "label_b": label_b, "keyed_by": keyed_by, "weighting": weighting}
            own = rng.uniform(0.2, 0.8)
            overlaps.append(same | way | {"null_kind": "none", "value": own, "ci_low": own - 0.1, "ci_high": own + 0.1, "n": 3})
            for null_kind in ("same_label", "other_label"):
                null, n = (rng.random(), 6) if rng.random() < 0.9 else (None, 0)
                found = {"null_kind": null_kind, "value": null, "n": n}
                if n:
                    found |= {
                        "ci_low": null / 2,
                        "ci_high": (1 + null) / 2,
                        "corrected": own - null,
                        "corrected_ci_low": -1.0,
                        "corrected_ci_high": 1.0,
                    }
                overlaps.append(same | way | found)
    return {"group_prompts": prompts, "group_overlaps": overlaps, **_label_features(rng)}


def _label_features(rng):
    features, scores = [], []
    for label, layer in product(("de", "fr"), range(LAYERS)):
        same = {"groups_id": "random-groups-0", "dict_id": DICT, "label": label}
        for rank, feature in enumerate(rng.sample(range(FEATURES), 3), start=1):
            influence = rng.random()
            shares = {
                name: rng.random()
                for name in (
                    "recurrence",
                    "effect",
                    "auc",
                    "auc_matched",
                    "matched_share",
                    "embedding_share",
                    "probe_cosine",
                    "high",
                )
            }
            found = {"rank": rank, "influence": influence, "contrast": influence / (1 + rank), **shares}
            features.append(same | {"layer": layer, "feature": feature} | found)
        for n in (1, 2):
            found = {
                "auc": rng.random(),
                "auc_matched": None if n == 2 else rng.random(),
                "matched_share": rng.random(),
                "fitted_auc": rng.random(),
                "fitted_auc_matched": None if n == 2 else rng.random(),
                "n_pieces": 12,
            }
            scores.append(same | {"first_layer": layer, "n_features": n} | found)
    return {"label_features": features, "label_scores": scores, "substitutions": list(_substitutions(rng))}


def _substitutions(rng):
    """Two pairs of labels, each with four grid points of which one is measured."""
    rates = ("rate_label", "rate_right", "text_rate_label", "text_rate_right", "kl_nats")
    for label_from, label_to in (("de", "fr"), ("fr", "de")):
        same = {"groups_id": "random-groups-0", "dict_id": DICT, "label_from": label_from, "label_to": label_to}
        set_to = rng.choice(("multiples", "exchanged", "shifted"))
        points = [
            {"n_features": n, "positions": "last", "set_to": set_to, "suppress": -1.0, "boost": boost}
            for n in (1, 3)
            for boost in (1.0, 2.0)
        ]
        best, randoms = rng.choice(points), [("test", "random", draw, rng.choice(points)) for draw in range(3)]
        ways = [("choice", "none", None, point) for point in points] + [("test", "untouched", None, {})] + randoms
        for part, control, draw, point in [*ways, ("test", "none", None, best), ("test", "reverse", None, best)]:
            found = {name: rng.random() if part == "test" or "text" not in name else None for name in rates}
            concept = found["rate_right"] + (1 - found["rate_right"]) * rng.random()
            found |= {"rate_concept": concept, "n": 20, "is_best": part == "test" or point is best}
            known = {f"n_{name}": rng.randrange(point["n_features"] + 1) for name in ("suppressed", "boosted") if point}
            yield same | {"part": part, "control": control, "draw": draw} | point | known | found


def _isolation(rng):
    """Of each layer some features at two multiples, of which the first two are concepts'; the PLT's one layer has no later one."""
    for dict_id, layer in (*product((DICT,), range(LAYERS)), (OLD, 0)):
        later = dict_id == DICT and layer < LAYERS - 1
        for number, feature in enumerate(rng.sample(range(10), 5)):
            same = {"dict_id": dict_id, "layer": layer, "feature": feature, "is_sampled": number > 0, "high": rng.uniform(1, 3)}
            same |= {"decoder_norm": rng.random(), "decoder_overlap": rng.uniform(1, 5), "n_prompts": 8}
            for multiple in (1.0, 4.0):
                found = {"multiple": multiple, "n_unrelated": rng.choice((0, 5))}
                found["kl_nats"] = rng.random() if found["n_unrelated"] else None
                if later:
                    found |= {"leakage_later": rng.uniform(0, 9), "most_layer": layer + 1, "most_feature": rng.randrange(10)}
                    found["most_change"] = found["leakage_later"] / 2
                if number < 2:
                    found |= {
                        "concept": f"concept {number}",
                        "n_drop": 4,
                        "success_drop": rng.choice((0, 0.25, 1)),
                        "n_include": 0,
                    }
                    found |= {"n_include": 3, "success_include": rng.random()} if number else {}
                yield same | found


def _graph(rng, graph_id, dict_id):
    """Features at random places, an error in each layer and position, 3 embeddings, a logit; edges forward, some of them kept."""
    nodes = [
        {"kind": "feature", "layer": layer, "feature": rng.randrange(5 if dict_id == DICT else 6), "position": position}
        for layer in range(LAYERS if dict_id == DICT else 1)
        for position in range(1, 3)
        for _ in range(2)
    ]
    nodes = sorted(
        {tuple(node.items()): node for node in nodes}.values(), key=lambda n: (n["layer"], n["position"], n["feature"])
    )
    nodes += [{"kind": "error", "layer": layer, "position": position} for layer in range(LAYERS) for position in range(1, 3)]
    nodes += [{"kind": "embedding", "position": position, "token": position} for position in range(3)]
    nodes += [{"kind": "logit", "position": 2, "token": token, "probability": p} for token, p in ((5, 0.75), (6, 0.25))]
    for node in nodes:
        known = {"activation": rng.random() if node["kind"] == "feature" else None, "kept": rng.random() < 0.8}
        node |= known | {"influence": 0.0 if node["kind"] == "logit" else rng.random(), "dropped_mass": rng.random() / 10}
    depth = [{"embedding": -1, "logit": 9}.get(node["kind"], node.get("layer")) for node in nodes]
    pairs = [
        (s, t)
        for t in range(len(nodes))
        for s in range(len(nodes))
        if depth[s] < depth[t] and nodes[t]["kind"] in ("feature", "logit") and rng.random() < 0.6
    ]
    edges = [(*pair, rng.gauss(0, 1), rng.random(), rng.random() < 0.7) for pair in pairs]
    facts = {
        "graph_id": graph_id, "dict_id": dict_id, "model_id": "toy", "prompt_id": graph_id, "prompt": f"prompt of {graph_id}",
        "tokens": [0, 1, 3], "replacement_score": rng.random(), "completeness_score": rng.random(), "error_share": rng.random(),
        "mean_path_length": rng.uniform(1, 4), "seconds": 1.5, "max_abs_error": rng.random(), "ablation_spearman": rng.choice([None, 0.5]),
    }  # fmt: skip
    curve = [(node, 0.98, round(100 * node), 1000, node, node) for node in (0.9, 0.5)]
    intervention = {
        "intervention_id": f"{graph_id}-ablate-0",
        "graph_id": graph_id,
        "dict_id": dict_id,
        "model_id": "toy",
        "mode": "free",
    }
    setting = {"layer": 1, "feature": 2, "position": 1, "operation": "set", "value": 0.0}
    settings = [setting, setting | {"position": 2}, setting | {"feature": 3}]
    effects = [("logit", None, 2, None, token, 1.0, rng.random(), rng.random(), 0.5, token / 20) for token in (5, 6)]
    effects.append(("feature", 1, 1, 2, None, 1.0, 0.0, 0.5, None, None))
    into = {t: [edge for edge in edges if edge[1] == t and nodes[edge[0]]["kind"] == "embedding"] for t in range(len(nodes))}
    direct = [edge for t in (len(nodes) - 2, len(nodes) - 1) for edge in into[t]]
    steps = [
        (path, 0, s, t, via, head, position, factor * weight, 1.0)
        for path, (s, t, weight, *_) in enumerate(direct)
        for via, head, position, factor in (
            ("residual", None, None, 0.25),
            ("L0H1 L1H0", "L1H0", 1, 0.5),
            ("others", None, None, 0.25),
        )
    ]
    paths = [(path, 1 + path, t, weight, 0.01) for path, (_, t, weight, *_) in enumerate(direct)]
    return {
        **graph(facts, nodes, rows("source_id target_id weight influence kept", edges)),
        "paths": rows("path_id rank target_id weight share", paths, graph_id=graph_id),
        "path_steps": rows(
            "path_id step source_id target_id via head source_position input_factor weight_factor", steps, graph_id=graph_id
        ),
        "supernodes": [{"supernode_id": f"{graph_id}-s0", "graph_id": graph_id, "name": "group", "node_ids": [0, 1]}],
        "prune_curves": rows(
            "node_threshold edge_threshold n_nodes n_edges replacement_score completeness_score", curve, graph_id=graph_id
        ),
        "interventions": [intervention | {"settings": settings, "text_without": "a", "text_with": "b"}],
        "intervention_effects": rows(
            "kind layer position feature token before after predicted probability_before probability_after",
            effects,
            intervention_id=intervention["intervention_id"],
        ),
    }


SPEC = "model:\n  id: toyworld\nname: one\ntrain:\n  kind: clt\n  l0: 6\n"
OTHER = "activations:\n  text:\n  - toyworld: true\n  - files: a.txt\n    label: fr\nmodel:\n  id: toyworld\nname: two\ntrain:\n  l0: 8\n"
EXPERIMENTS = [
    {"experiment": "one", "spec_hash": "h0", "spec_yaml": "name: one\n", "created_at": "2026-01-01T00:00:00+00:00"},
    {"experiment": "one", "spec_hash": "h1", "spec_yaml": SPEC, "created_at": "2026-01-02T00:00:00+00:00"},
    {"experiment": "two", "spec_hash": "h2", "spec_yaml": OTHER, "created_at": "2026-01-02T00:00:00+00:00"},
    *(
        {
            "experiment": f"seed-{seed}",
            "spec_hash": f"s{seed}",
            "spec_yaml": f"seed: {seed}",
            "created_at": "2026-01-03T00:00:00+00:00",
        }
        | {"sweep": "seeds", "swept": {"train.l0": 3, "seed": seed}}
        for seed in (0, 1)
    ),
]
STAGE_RUNS = [
    {"run_id": f"run-{i}", "experiment": experiment, "spec_hash": "h1", "stage": stage, "key": f"{stage}-key", "status": status,
     "started_at": f"2026-01-0{i + 1}T00:00:00+00:00", "seconds": seconds, "device": device, "error": error}
    for i, (experiment, stage, status, seconds, device, error) in enumerate([
        ("one", "train", "failed", 2.0, "cuda:0", "a loss of NaN at step 3"), ("one", "train", "done", 8.0, "cuda:0", None),
        ("one", "train", "done", 0.0, "cpu", None), ("one", "harvest", "done", 3.0, "cpu", None),
        ("two", "train", "killed", 1.0, "cpu", "the process ended without an error message"),
    ])
]  # fmt: skip
STAGE_RUNS += [
    {"run_id": f"seed-{seed}", "experiment": f"seed-{seed}", "spec_hash": f"s{seed}", "stage": "train", "key": "all-key"}
    | {"status": "done", "started_at": "2026-01-09T00:00:00+00:00", "seconds": 0.0, "device": "cpu"}
    for seed in (0, 1)
]

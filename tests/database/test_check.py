"""`cltdb db check` finds what was planted, and nothing in what is sound."""

import random
import re
import shutil
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest
from benchmarks import synthetic_database as synthetic
from worlds import tiny_experiment as world
from worlds.tables import contents, write_artifact

from cltdb.database import check as check_module
from cltdb.database import sources
from cltdb.database.artifacts import loadable_artifacts, lost_records
from cltdb.database.check import check, read_all
from cltdb.database.load import load_artifact, load_artifacts, unload_artifact
from cltdb.database.proofs import keys_that_may_stand_twice
from cltdb.database.rebuild import rebuild
from cltdb.database.records import against_records
from cltdb.database.store import connect
from cltdb.database.workbench import workbench
from cltdb.engine.workspace import Workspace
from cltdb.errors import CltdbError


def first(table, change, where="true"):
    """SQL that changes the first row of a table of which something is true."""
    return f"UPDATE {table} SET {change} WHERE rowid = (SELECT min(rowid) FROM {table} WHERE {where})"


DAMAGE = {  # what was done: (SQL, what is said of it)
    "a window of no feature": (
        "UPDATE windows SET feature = 41 WHERE layer = 0 AND feature = 1",
        r"windows: .*expected dict_id, layer, feature of a row of features",
    ),
    "scores of no explanation": (
        "DELETE FROM explanations WHERE layer = 0 AND feature = (SELECT min(feature) FROM scores WHERE layer = 0)",
        r"scores: .*expected dict_id, layer, feature, side, explainer of a row of explanations",
    ),
    "a layer that the dictionary lacks": (
        "UPDATE features SET layer = 4 WHERE layer = 0 AND feature = 2",
        r"features: 1 row.* layer 4.*a layer of the dictionary",
    ),
    "a word that no search knows": (
        "DELETE FROM word_forms WHERE word = (SELECT max(word) FROM words)",
        r"words: .*expected word_hash of a row of word_forms",
    ),
    "a word by the hash of another": (
        "UPDATE word_forms SET word_hash = md5_number_lower('another') WHERE word = (SELECT min(word) FROM words)",
        r"word_forms: .*expected the hash of the word",
    ),
    "a neighbour that is no word": (
        "UPDATE words SET neighbours = list_transform(range(48), lambda i: 60000)::USMALLINT[48] WHERE place = (SELECT min(place) FROM words)",
        r"words: .*expected neighbours among the words that reach features",
    ),
    "a key twice": (
        "INSERT INTO feature_edges SELECT * FROM feature_edges LIMIT 1",
        r"feature_edges: .* n \d; expected one row of each key",
    ),
    "an end of an edge gone": (
        "DELETE FROM nodes WHERE node_id = 3",
        r"edges: .*source_id 3.*expected graph_id, source_id of a row of nodes",
    ),
    "features of a layer gone": (
        "DELETE FROM features WHERE layer = 3",
        r"dictionaries: .*expected n_features features in each of n_layers",
    ),
    "an edge to no feature": (
        "UPDATE feature_edges SET target_feature = 77 WHERE target_layer = 1 AND source_feature = 3",
        r"feature_edges: .*expected dict_id, target_layer, target_feature of",
    ),
    "an edge of another number": (
        "UPDATE feature_edges SET source_place = source_place + 1 WHERE source_feature = 4",
        r"feature_edges: .*expected .* as source_place",
    ),
    "a score of another judge": (
        "UPDATE scores SET judge = 'someone' WHERE layer = 3 AND feature = 4",
        r"scores: .*expected .* as judge",
    ),
    "an edge without its number": (
        first("feature_edges", "source_place = NULL"),
        r"feature_edges: .*expected .* as source_place",
    ),
    "an edge through a head, with a mean over tokens": (
        "UPDATE feature_edges SET via = 'L1H0' WHERE target_layer = 2 AND source_feature = 2",
        r"feature_edges: .*expected a head such as L3H2 as via, with no mean",
    ),
    "paths that are more than all": (
        "INSERT INTO paths SELECT e.graph_id, n, n + 1, e.target_id, 1, 0.75, e.artifact_key FROM (FROM edges LIMIT 1) AS e, range(2) AS r(n)",
        r"paths: .*expected shares of one target that add up to at most 1",
    ),
    "routes that miss their edge": (
        "INSERT INTO path_steps SELECT graph_id, 0, 0, source_id, target_id, 'residual', NULL, NULL, 1, weight + 1, artifact_key FROM edges LIMIT 1",
        r"path_steps: .*expected routes that add up to the weight of their edge",
    ),
    "a node of no feature": (
        "UPDATE nodes SET feature = 4000 WHERE kind = 'feature' AND node_id = 1",
        r"nodes: .*feature 4000; expected a row of features for",
    ),
    "shares of labels that are no whole": (
        "UPDATE feature_labels SET share = share / 2 WHERE (dict_id, layer, feature)"
        " = (SELECT (dict_id, layer, feature) FROM feature_labels WHERE share > 0 AND layer = 1 LIMIT 1)",
        r"feature_labels: .*shares 0\.(5|4999).*expected for every label of the text one row, .* shares that add up to 1",
    ),
    "a profile that its feature does not know": (
        "UPDATE features SET label_entropy = NULL WHERE (dict_id, layer, feature)"
        " = (SELECT (dict_id, layer, feature) FROM feature_labels WHERE share > 0 AND layer = 0 ORDER BY ALL LIMIT 1)",
        r"features: .*label_entropy NULL.*expected entropy, information and firings as its rows of feature_labels",
    ),
    "a rate that is no share of the tokens": (
        "UPDATE feature_labels SET rate = firings / tokens + 0.1 WHERE (dict_id, layer, feature, label)"
        " = (SELECT (dict_id, layer, feature, label) FROM feature_labels WHERE layer = 2 LIMIT 1)",
        r"feature_labels: .*rate 0\..*expected firings / tokens as rate",
    ),
    "a token outside the vocabulary in the text": (
        "UPDATE harvested_text SET tokens = list_prepend(70000, tokens[2:]) WHERE sequence = (SELECT max(sequence) FROM harvested_text)",
        r"harvested_text: 1 row.*70000.*expected token ids of the model's vocabulary",
    ),
    "a token outside the vocabulary among promoted ones": (
        "UPDATE features SET top_logits = [{'token': 70000, 'value': 1}] WHERE layer = 1 AND feature = 1",
        r"features: 1 row.*70000.*expected token ids of the model's vocabulary",
    ),
    "a prompt with a token outside the vocabulary": (
        "UPDATE graphs SET tokens = list_prepend(-1, tokens[2:])",
        r"graphs: .*-1.*expected token ids of the model's vocabulary",
    ),
    "a mean of search one too high": (
        "UPDATE word_statistics SET mean_length = mean_length + 1",
        r"word_statistics: 1 row.*expected the mean number of words of an explanation",
    ),
    "an effect of search that is gone": (
        "UPDATE word_statistics SET mean_effect = NULL",
        r"word_statistics: 1 row.*mean_effect NULL, effect 0\..*and the mean effect on promoted tokens",
    ),
    "density NaN": (
        "UPDATE features SET density = 'nan' WHERE layer = 1 AND feature = 2",
        r"features: 1 row.*density nan; expected a finite density",
    ),
    "a score NaN": (
        "UPDATE scores SET score = 'nan' WHERE scorer = 'fuzzing' AND layer = 1",
        r"scores: .*expected a finite score",
    ),
    "an edge weight NaN": ("UPDATE edges SET weight = 'nan' WHERE source_id = 5", r"edges: .*expected a finite weight"),
    "an infinite metric": (
        "UPDATE metrics SET value = 'inf' WHERE step = 50 AND name = 'fvu'",
        r"metrics: .*value inf.*; expected a finite value",
    ),
    "density 3": ("UPDATE features SET density = 3 WHERE layer = 1 AND feature = 3", r"features: .*expected density from 0 to 1"),
    "a score of 7": ("UPDATE scores SET score = 7 WHERE layer = 2", r"scores: .*expected score from -1 to 1"),
    "a score outside its interval": (
        "UPDATE scores SET ci_low = 0.99, ci_high = 1 WHERE layer = 0",
        r"scores: .*expected a score inside its interval",
    ),
    "negative costs": (
        "UPDATE explanations SET cost_usd = -1 WHERE layer = 1",
        r"explanations: .*expected cost_usd of at least 0",
    ),
    "a status of no list": (
        "UPDATE explanations SET status = 'okay' WHERE layer = 2",
        r"explanations: .*status okay; expected status one of ok, failed",
    ),
    "fewer activations than offsets": (
        "UPDATE windows SET activations = activations[2:] WHERE layer = 1 AND feature = 1",
        r"windows: .*expected as many offsets as activations",
    ),
    "a wrong maximum": (
        "UPDATE windows SET max_activation = 1e-3 WHERE layer = 1 AND feature = 2",
        r"windows: .*expected max_activation at the peak",
    ),
    "a window above the feature's maximum": (
        "UPDATE windows SET activations = list_append(activations, 1e9) WHERE layer = 1 AND feature = 3",
        r"windows: .*expected no activation above features.max_activation",
    ),
    "a peak outside the window": (
        "UPDATE windows SET position = start + length WHERE layer = 1 AND feature = 4",
        r"windows: .*expected a peak inside the window",
    ),
    "offsets that fall": (
        "UPDATE windows SET offsets = list_reverse(offsets), activations = list_reverse(activations) WHERE layer = 1 AND feature = 5",
        r"windows: .*expected offsets that rise",
    ),
    "another token at the peak": (
        "UPDATE windows SET peak_token = peak_token + 1 WHERE layer = 1 AND feature = 6",
        r"windows: .*expected a text with peak_token at the peak",
    ),
    "the text of a sequence gone": (
        "DELETE FROM harvested_text WHERE sequence = (SELECT min(sequence) FROM harvested_text)",
        r"windows: .* token NULL; expected a text with peak_token at the peak",
    ),
    "a window past its text": (
        "UPDATE windows SET length = 300 WHERE layer = 1 AND feature = 7",
        r"windows: .*length 300.*expected windows that end inside their text",
    ),
    "a rank left out": (
        "UPDATE windows SET rank = 90 WHERE layer = 1 AND feature = 8 AND band = 'top' AND rank = 0",
        r"windows: .*ranks 91; expected ranks 0, 1, 2",
    ),
    "a count of contexts": (
        "UPDATE features SET n_contexts = n_contexts + 1 WHERE layer = 1 AND feature = 9",
        r"features: .*expected as many places and documents of windows as n_contexts",
    ),
    "a histogram that counts too much": (
        "UPDATE features SET histogram = list_append(histogram, {'low': 1e9, 'n': 5}) WHERE layer = 1 AND feature = 10",
        r"features: .*expected a histogram that counts the tokens",
    ),
    "windows gone": (
        "DELETE FROM windows WHERE layer = 2 AND feature < 9",
        r"windows: [\d,]+ rows of artifact \w+, of which [\d,]+ were loaded",
    ),
    "a record of other rows": (
        "UPDATE loaded_parts SET rows = rows + 1 WHERE starts_with(part, 'supernodes/')",
        r"supernodes: \d+ rows of artifact \w+, of which \d+ were",
    ),
    "another number of edges": ("UPDATE graphs SET n_edges = n_edges + 1", r"graphs: .*expected as many edges as n_edges says"),
    "another number of features": (
        "UPDATE dictionaries SET n_features = 41 WHERE dict_id LIKE 'synthetic-clt%'",
        r"dictionaries: .* n_features 41, layers .*; expected n_features features",
    ),
    "another text": (
        "UPDATE explanations SET model = 'who?' WHERE layer = 3",
        r"explanations: \d+ rows?, .*expected the rows of .*explain",
    ),
    "a part that is not loaded": (
        "DELETE FROM path_lengths WHERE graph_id = (SELECT max(graph_id) FROM graphs);"
        " DELETE FROM loaded_parts WHERE part = (SELECT 'path_lengths/' || max(graph_id) FROM graphs)",
        r"/.*/path_lengths/.*parquet is not loaded",
    ),
    "a derived row that is not so": (
        "UPDATE best_explanations SET text = 'other' WHERE layer = 3",
        r"best_explanations: .*expected rows as best_explanations.sql makes them",
    ),
    "a derived row gone": (
        "DELETE FROM edges_into WHERE target_layer = 2",
        r"edges_into: .*expected rows as edges_into.sql makes them",
    ),
    "edges through heads of another weight by target": (
        "UPDATE head_edges_into SET virtual_weight = virtual_weight + 1",
        r"head_edges_into: .*expected rows as head_edges_into.sql makes them",
    ),
    "a strongest edge gone": (
        "DELETE FROM strongest_edges WHERE kind = 'together'",
        r"strongest_edges: .*expected rows as strongest_edges.sql makes them",
    ),
    "a group with no such node": (
        "UPDATE supernodes SET node_ids = [99999]",
        r"supernodes: .*node_id 99999; expected nodes of its graph",
    ),
    "an explanation without text": (
        "UPDATE explanations SET text = NULL WHERE layer = 3 AND status = 'ok'",
        r"explanations: .*expected a text where status is ok",
    ),
    "a detail that is no JSON": ("UPDATE scores SET detail = '{' WHERE layer = 3", r"scores: .*expected JSON as detail"),
    "rows of an artifact that nobody loaded": (
        "UPDATE vocabulary SET artifact_key = 'nobody' WHERE token = 7",
        r"vocabulary: rows of artifact nobody, of which no part is recorded",
    ),
    "promoted tokens the weakest first": (
        "UPDATE features SET top_logits = list_reverse(top_logits) WHERE layer = 1 AND feature = 12",
        r"features: .*expected the strongest effect first",
    ),
    "a negative loss": (
        "UPDATE metrics SET value = -0.2 WHERE rowid = (SELECT min(rowid) FROM metrics WHERE name = 'fvu' AND step = 0)",
        r"metrics: .*value -0.2, .*expected no number below 0",
    ),
    "an input token outside the vocabulary": (
        "UPDATE input_edges SET input = 70000 WHERE rowid = (SELECT min(rowid) FROM input_edges WHERE kind = 'token')",
        r"input_edges: 1 row.*70000.*expected token ids of the model's vocabulary",
    ),
    "a head before the source": (
        "UPDATE feature_edges SET via = 'L0H1' WHERE rowid = (SELECT max(rowid) FROM feature_edges WHERE via IS NOT NULL)",
        r"feature_edges: .*expected a head between source and target",
    ),
    "a feature as its own neighbour": (
        "UPDATE feature_neighbours SET neighbour = feature WHERE layer = 2 AND feature = 2 AND rank = 0",
        r"feature_neighbours: .*expected another feature",
    ),
    "an intervention at no position": (
        "UPDATE interventions SET settings = list_transform(settings, lambda s: struct_insert(struct_pack(layer := s.layer, feature := s.feature),"
        " position := 999, operation := s.operation, value := s.value)) WHERE intervention_id = (SELECT min(intervention_id) FROM interventions)",
        r"interventions: .*999.*expected positions of the prompt",
    ),
    "an intervention on another model": (
        "UPDATE interventions SET model_id = 'none' WHERE intervention_id = (SELECT max(intervention_id) FROM interventions)",
        r"interventions: .*model_id none; expected model_id of a row of models",
    ),
    "an effect on no token": (
        "UPDATE intervention_effects SET token = 70000 WHERE rowid = (SELECT min(rowid) FROM intervention_effects WHERE kind = 'logit')",
        r"intervention_effects: .*70000.*expected token ids of the model's vocabulary",
    ),
    "an edge into an embedding": (
        "UPDATE edges SET target_id = (SELECT max(node_id) FROM nodes AS n WHERE n.graph_id = edges.graph_id AND kind = 'embedding')"
        " WHERE rowid = (SELECT max(rowid) FROM edges)",
        r"edges: .*expected edges from inputs and features to",
    ),
    "more left than there was": (
        "UPDATE prune_curves SET n_nodes = 1000000 WHERE rowid = (SELECT min(rowid) FROM prune_curves)",
        r"prune_curves: .*expected no more nodes and edges than the graph",
    ),
    "a path's place left out": (
        "UPDATE paths SET rank = 77 WHERE rowid = (SELECT min(rowid) FROM paths)",
        r"paths: .*ranks 77, .*; expected ranks 1, 2, 3",
    ),
    "a word at the place of the next": (
        first("words", "place = place + 1", "vector IS NULL"),
        r"words: .*ought.*expected places from the number of the dictionary on",
    ),
    "a row of no artifact": (
        "INSERT INTO metrics BY NAME SELECT * REPLACE (NULL AS artifact_key, 99999 AS step) FROM metrics LIMIT 1",
        "metrics: rows of no artifact",
    ),
    "the stem of another word": (
        "UPDATE word_forms SET stem = 'another' WHERE word = (SELECT word FROM words ORDER BY word LIMIT 1 OFFSET 3)",
        r"word_forms: .*expected the stem of the word",
    ),
    "a word of no dictionary": (
        "INSERT INTO word_forms BY NAME SELECT 'none' AS word, 'none' AS stem, md5_number_lower('none') AS word_hash",
        r"word_forms: .*expected words of a dictionary",
    ),
    "a word on the page of others": (
        "UPDATE word_pages SET words = words[21:] WHERE rowid = (SELECT min(rowid) FROM word_pages)",
        r"word_pages: .*expected the words of the dictionary whose hashes begin so",
    ),
    "another share of a word": (
        "UPDATE words SET share = 0.123 WHERE word = (SELECT word FROM words ORDER BY word LIMIT 1 OFFSET 5)",
        r"words: .*expected share, tokens, labels and reaches as its rows give them",
    ),
    "embeddings of two lengths": (
        "INSERT INTO text_embeddings VALUES ('m', md5('a'), [1]), ('m', md5('b'), [1, 0])",
        r"text_embeddings: .*shortest 1, longest 2; expected vectors of one length",
    ),
    "a failure without a reason": (
        "UPDATE stage_runs SET status = 'failed', error = NULL WHERE rowid = (SELECT min(rowid) FROM stage_runs)",
        r"stage_runs: .*expected the reason of a failure",
    ),
    "a strongest window that is not first": (
        "UPDATE windows SET rank = 1 - rank WHERE layer = 1 AND feature = 11 AND band = 'top' AND rank < 2",
        r"windows: .*feature 11.*expected the highest activation at rank 0",
    ),
    "documents that are not those of its windows": (
        first(
            "features", "n_documents = n_documents + 1", "layer = 1 AND feature BETWEEN 13 AND 39 AND n_documents < n_contexts"
        ),
        r"features: .*expected as many places and documents of windows",
    ),
    "another maximum of a feature": (
        first("features", "max_activation = max_activation * 2", "NOT dead AND layer = 2 AND feature > 20"),
        r"windows: .*expected no activation above features.max_activation, which the first window has",
    ),
    "decoder norms cut off": (
        first("features", "decoder_norms = decoder_norms[:1]", "layer = 0 AND feature > 20"),
        r"features: .*expected one decoder norm, or of a CLT one for each layer",
    ),
    "fewer promoted tokens than others have": (
        first("features", "top_logits = top_logits[:3]", "layer = 2 AND feature > 21"),
        r"features: .*expected lists of tokens that are equally long",
    ),
    "a promoted token twice": (
        first("features", "bottom_logits = list_prepend(bottom_logits[1], bottom_logits[:-2])", "layer = 2 AND feature > 22"),
        r"features: .*expected each token once",
    ),
    "a histogram whose bins fall": (
        first("features", "histogram = list_reverse(histogram)", "len(histogram) > 1 AND layer = 2 AND feature > 23"),
        r"features: .*expected bins that rise",
    ),
    "a mass above the largest activation": (
        first("feature_labels", "mass = mass * 1e6", "firings > 0 AND layer = 2 AND feature > 24"),
        r"feature_labels: .*expected a mass of at most firings times",
    ),
    "shares of two labels that are others": (
        "UPDATE feature_labels SET share = CASE label WHEN (SELECT min(label) FROM feature_labels) THEN share + 0.01"
        " WHEN (SELECT max(label) FROM feature_labels) THEN share - 0.01 ELSE share END WHERE (layer, feature) = (SELECT (layer, feature)"
        " FROM feature_labels WHERE share > 0.02 AND label = (SELECT max(label) FROM feature_labels) AND layer = 3 ORDER BY ALL LIMIT 1)",
        r"feature_labels: .*expected rate / the sum of the rates",
    ),
    "a window of a document that others have elsewhere": (
        first("windows", "document = document + 1", "layer = 1 AND feature > 25"),
        r"windows: .*next_document.*expected windows of different documents that share no token",
    ),
    "a window of another label": (
        "UPDATE windows SET label = (SELECT max(label) FROM windows AS w WHERE w.label <> windows.label)"
        " WHERE rowid = (SELECT max(rowid) FROM windows WHERE layer = 1 AND feature < 39 AND label IS NOT NULL)",
        r"windows: .*other_label.*expected one label of each document",
    ),
    "a text that no window is of": (
        "INSERT INTO harvested_text BY NAME SELECT * REPLACE (99999 AS sequence) FROM harvested_text LIMIT 1",
        r"harvested_text: .*sequence 99999; expected a window of every sequence",
    ),
    "a neighbour's place left out": (
        first("feature_neighbours", "rank = 40", "layer = 1 AND feature = 3 AND rank = 0"),
        r"feature_neighbours: .*ranks 41.*expected ranks 0, 1, 2",
    ),
    "a nearest neighbour that is far": (
        first("feature_neighbours", "cosine = 0", "layer = 1 AND feature = 4 AND rank = 0"),
        r"feature_neighbours: .*expected the most similar neighbour first",
    ),
    "an empty explanation": (
        first("explanations", "text = ' '", "status = 'ok' AND layer = 0 AND feature > 5"),
        r"explanations: .*expected a text that is not empty",
    ),
    "a score of an explanation that failed": (
        "UPDATE explanations SET status = 'failed', text = NULL, error = 'no reply' WHERE rowid = (SELECT max(e.rowid) FROM explanations AS e"
        " SEMI JOIN scores USING (dict_id, layer, feature, side, explainer) WHERE layer = 0)",
        r"scores: .*status failed; expected explanations that were made",
    ),
    "an unknown scorer": (
        first("scores", "scorer = 'guess'", "layer = 1"),
        r"scores: .*scorer guess.*expected a scorer: detection",
    ),
    "a request with another id": (first("requests", "request_id = 'abc'"), r"requests: .*abc; expected a SHA-256"),
    "a request for nothing": (
        first("requests", "purpose = 'nothing'"),
        r"requests: .*nothing; expected an explainer or scorer as purpose",
    ),
    "a token that is gone": (
        "DELETE FROM vocabulary WHERE token = 17",
        r"models: .*expected a row of vocabulary for each token",
    ),
    "a narrower dictionary": (
        first("dictionaries", "d_model = 769"),
        r"dictionaries: .*769.*expected no more layers than the model has",
    ),
    "a share of errors": (
        first("graphs", "error_share = error_share / 2"),
        r"graphs: .*expected the share of errors in the influence of its nodes",
    ),
    "a mean length of paths": (
        first("graphs", "mean_path_length = mean_path_length + 1"),
        r"graphs: .*expected the mean of path_lengths",
    ),
    "another number of ablations": (first("graphs", "n_ablations = 77"), r"graphs: .*n_ablations 77.*expected as many ablations"),
    "a graph on another prompt": (
        first("graphs", "tokens = list_reverse(tokens)", "graph_id = (SELECT max(graph_id) FROM graphs)"),
        r"nodes: .*of_prompt.*expected the token of the prompt at its position",
    ),
    "nodes in another order": (
        first("nodes", "layer = layer + 1", "kind = 'feature' AND layer = 0"),
        r"nodes: .*expected features, errors, embeddings and logits by layer",
    ),
    "another weight of an edge": (
        first("edges", "weight = 3 * weight", "graph_id = (SELECT max(graph_id) FROM graphs)"),
        r"edges: .*expected the edge's share of all that enters its target",
    ),
    "paths in another order": (
        "UPDATE paths SET rank = 3 - rank WHERE rank < 3 AND (graph_id, target_id)"
        " = (SELECT (graph_id, target_id) FROM paths WHERE rank = 2 ORDER BY ALL DESC LIMIT 1)",
        r"paths: .*expected the strongest path first",
    ),
    "a share of a path": (
        first("paths", "share = share / 2", "graph_id = (SELECT max(graph_id) FROM graphs)"),
        r"paths: .*expected shares in proportion to weights",
    ),
    "a step elsewhere": (
        first("path_steps", "target_id = target_id + 1", "graph_id = (SELECT max(graph_id) FROM graphs)"),
        r"path_steps: .*expected steps that follow each other",
    ),
    "a node that is no more kept": (
        first("nodes", "kept = false", "kept AND kind = 'error' AND graph_id = (SELECT max(graph_id) FROM graphs)"),
        r"graphs: .*expected as many kept nodes as prune_curves has",
    ),
    "two bands of windows exchanged": (
        "UPDATE windows SET band = CASE band WHEN 'q0' THEN 'q1' WHEN 'q1' THEN 'q0' ELSE band END WHERE layer = 3"
        " AND feature = (SELECT min(feature) FROM windows WHERE layer = 3 AND band = 'q1')",
        r"windows: .*expected bands that rise",
    ),
    "places of activations shifted": (
        first("windows", "offsets = list_transform(offsets, lambda o: o + 1)", "len(offsets) = 1 AND offsets[1] + 2 < length"),
        r"windows: .*expected max_activation at the peak",
    ),
    "a node twice in a group": (
        first("supernodes", "node_ids = list_append(node_ids, node_ids[1])", "artifact_key IS NOT NULL"),
        r"supernodes: .*expected each node once",
    ),
    "an ablation of a graph that is not there": (
        first("interventions", "graph_id = 'nowhere'"),
        r"interventions: .*nowhere.*expected a graph of its artifact",
    ),
    "an ablation of another dictionary": (
        "UPDATE interventions SET dict_id = 'none' WHERE rowid = (SELECT max(rowid) FROM interventions)",
        r"interventions: .*none.*expected dictionary, model and tokens of its graph",
    ),
    "another prompt of an ablation": (
        first("interventions", "prompt = 'another'", "mode = 'free'"),
        r"interventions: .*prompt another.*expected the prompt of its graph",
    ),
    "another prompt of an intervention by hand": (
        "INSERT INTO interventions BY NAME SELECT * REPLACE ('the-cat-0abc12-0123abcd' AS intervention_id, NULL AS graph_id)"
        " FROM interventions WHERE mode = 'iterative' LIMIT 1",
        r"interventions: .*the-cat.*expected the prompt of which intervention_id has the hash",
    ),
    "an effect of both kinds": (
        first("intervention_effects", "token = 3", "kind = 'feature'"),
        r"intervention_effects: .*expected a token of logits alone",
    ),
    "a feature that is not what it was set to": (
        first("intervention_effects", "after = 3", "kind = 'feature'"),
        r"intervention_effects: .*expected the value that was set",
    ),
    "overlaps of another comparison": (
        first("group_overlaps", "groups_id = 'other'"),
        r"group_overlaps: .*other.*expected a comparison of labels that has prompts",
    ),
    "label features in another order": (
        "UPDATE label_features SET rank = 3 - rank WHERE rank < 3 AND (label, layer)"
        " = (SELECT (label, layer) FROM label_features WHERE rank = 2 ORDER BY ALL LIMIT 1)",
        r"label_features: .*expected the feature of highest contrast first",
    ),
    "a score of more features than there are": (
        first("label_scores", "n_features = 100_000"),
        r"label_scores: .*expected no more features than the label has",
    ),
    "a rate of no number of prompts": (
        first("substitutions", "rate_label = 0.123456"),
        r"substitutions: .*expected a share of n prompts as rate_label",
    ),
    "an overlap of no number of sources": (
        first("pullback_overlaps", "overlap = 0.1234567"),
        r"pullback_overlaps: .*expected a share of k sources",
    ),
    "a token without a head": (
        first("input_edges", "via = NULL", "kind = 'token'"),
        r"input_edges: .*expected a head as via of a token",
    ),
    "a head after the feature": (
        first("input_edges", "via = 'L3H0'", "layer = 0 AND via IS NOT NULL"),
        r"input_edges: .*expected a head before the feature as via",
    ),
    "nearness of other words": (
        first("words", "nearness = list_transform(nearness, lambda v: v * 0.5)::FLOAT[48]", "nearness[1] > 0"),
        r"words: .*expected nearness as the vectors of the words give it",
    ),
    "a sweep of nothing": (first("experiments", "sweep = NULL", "sweep IS NOT NULL"), r"experiments: .*expected what was swept"),
    "a spec that was edited": (
        first("experiments", "spec_yaml = spec_yaml || ' '", "sweep IS NULL"),
        r"experiments: 1 row.*expected the hash of spec_yaml as spec_hash",
    ),
    "a start of a run that was moved": (
        first("stage_runs", "started_at = started_at - INTERVAL 1 HOUR", "stage = 'train'"),
        r"stage_runs: 1 row.*expected experiment, stage, key and started_at as its run_id has them",
    ),
    "a run of another stage that was taken as it was": (
        "INSERT INTO stage_runs BY NAME SELECT * REPLACE ('a-train-0123abcd-cached' AS run_id, 'harvest' AS stage) FROM stage_runs LIMIT 1",
        r"stage_runs: 1 row.*cached.*expected experiment, spec_hash, stage and key as its run_id has them",
    ),
    "rows that nothing replaced": (
        "UPDATE loaded_parts SET superseded = true WHERE starts_with(part, 'input_edges/')",
        r"loaded_parts: superseded is true of input_edges of artifact \w+; expected a later artifact",
    ),
    "a part of no artifact": (
        "INSERT INTO loaded_parts SELECT 'nobody', 'metrics/part', 0, loaded_at, true, false FROM loaded_parts LIMIT 1",
        r"loaded_parts: .*nobody.*expected a row of loaded_artifacts",
    ),
    "a part that has no file": (
        "INSERT INTO loaded_parts SELECT artifact_key, 'metrics/none', 0, loaded_at, true, false FROM loaded_parts LIMIT 1",
        r"loaded_parts: metrics/none of artifact \w+, which has no such file",
    ),
    "a logit that its edges do not add up to": (
        first("nodes", "pre_activation = pre_activation + 9", "kind = 'logit'"),
        r"nodes: .*expected the sum of bias and of the edges that enter it as pre_activation",
    ),
    "logits more probable than 1": (
        first("nodes", "probability = 0.999", "kind = 'logit' AND graph_id = (SELECT max(graph_id) FROM graphs)"),
        r"nodes: .*expected probabilities of logits that add up to at most 1",
    ),
    "a target of edges that is not expanded": (
        first("nodes", "expanded = false", "kind = 'logit'"),
        r"edges: .*expected a target that is expanded",
    ),
    "fewer nodes at a higher threshold": (
        "UPDATE prune_curves SET n_nodes = 1 WHERE node_threshold = 0.95",
        r"prune_curves: .*expected no more nodes and edges at a lower threshold",
    ),
    "a path of the other sign": (
        first("paths", "weight = -weight", "graph_id = (SELECT max(graph_id) FROM graphs)"),
        r"paths: .*expected the product of its edges",
    ),
    "an effect that began elsewhere": (
        first("intervention_effects", "before = before + 5", "kind = 'logit'"),
        r"intervention_effects: .*expected what its graph has of that node as before",
    ),
    "embeddings of a feature gone": (
        first("features", "top_embeddings = NULL", "layer = 1"),
        r"features: .*expected lists of tokens that are equally long",
    ),
    "a pooled number that is not that of its layers": (
        first("metrics", "value = value * 1.01", "layer IS NULL AND name = 'l0' AND step = 50"),
        r"metrics: .*expected the mean over all layers where layer is NULL",
    ),
    "another cross-entropy": (
        first("metrics", "value = value + 0.1", "name = 'ce_zero' AND variant = 'single'"),
        r"metrics: .*expected .* of the cross-entropies as ce_recovered",
    ),
    "a value that is gone": (
        first("features", "encoder_norm = NULL", "layer = 2"),
        r"features: .*expected a value as encoder_norm, which other rows of the artifact have",
    ),
    "a prompt of another dictionary": (
        first("group_prompts", "dict_id = 'another'"),
        r"group_prompts: .*expected one dictionary of each comparison of labels",
    ),
    "a graph by the id of another prompt": (
        first("graphs", "prompt_id = 'another'"),
        r"graphs: .*expected a graph_id that begins with prompt_id",
    ),
    "a threshold at which nothing was pruned": (
        first("graphs", "node_threshold = 0.123"),
        r"graphs: .*expected a row of prune_curves at its thresholds",
    ),
    "two paths of one rank": (
        first("paths", "rank = rank - 1", "rank = 2 AND graph_id = (SELECT max(graph_id) FROM graphs)"),
        r"paths: .*expected ranks 1, 2, 3, … without a gap",
    ),
    "another number of prompts": (
        first("substitutions", "n = n + 1", "part = 'choice'"),
        r"substitutions: .*expected as many prompts at every point",
    ),
    "an ablation in another mode": (
        "UPDATE interventions SET mode = 'free' WHERE rowid = (SELECT max(rowid) FROM interventions"
        " WHERE contains(intervention_id, '-ablate-') AND mode = 'iterative')",
        r"interventions: .*expected layer, feature, position and mode as intervention_id has them",
    ),
    "another comment": ("COMMENT ON COLUMN edges.weight IS 'another'", r"edges.weight has another comment"),
    "a change by nobody": (
        "INSERT INTO annotation_events VALUES ('e', TIMESTAMP '2026-01-01', 'me', 'graph', NULL, 'explode', '{}')",
        r"annotation_events: a row that is no change of a user \(.*explode",
    ),
}
ONLY_FULL = {"offsets that fall", "a rank left out", "a count of contexts", "another text", "routes that miss their edge"}
ONLY_FULL |= {"shares of labels that are no whole", "a profile that its feature does not know"}
ONLY_FULL |= {"another share of a word", "a strongest window that is not first"}
ONLY_FULL |= {
    "documents that are not those of its windows", "a promoted token twice", "a histogram whose bins fall", "a mass above the largest activation",
    "shares of two labels that are others", "a window of a document that others have elsewhere", "a window of another label",
    "a text that no window is of", "a neighbour's place left out", "a nearest neighbour that is far", "a head after the feature",
    "nearness of other words", "a derived row that is not so", "a derived row gone", "a strongest edge gone", "two bands of windows exchanged",
    "edges through heads of another weight by target", "a logit that its edges do not add up to", "a path of the other sign",
}  # fmt: skip
"""What is not looked for in large tables by default, or in a piece of them."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project with a database that is sound: two experiments, of which one is explained and has graphs."""
    folder = tmp_path_factory.mktemp("synthetic")
    synthetic.load(folder, synthetic.make(folder, synthetic.Sizes.of(160, n_tokens=20_000, n_swept=1)))
    return synthetic.this_project(folder)


@pytest.fixture
def copied(made, tmp_path):
    """(path of a copy of its database, the artifacts that ought to be in it)."""
    return shutil.copy(made.database, tmp_path / "cltdb.duckdb"), loadable_artifacts(made)


def plant(path, *damage):
    with connect(path, write=True) as connection:
        for sql, _ in damage:
            connection.execute(sql)


@pytest.fixture
def all_is_large(monkeypatch):
    """Every table counts as a large one."""
    monkeypatch.setattr(check_module, "SMALL_ROWS", 0)
    monkeypatch.setattr(sources, "SMALL_BYTES", 0)
    monkeypatch.setattr(sources, "SMALL_GROUP", 0)


def not_found(lines, damage):
    return {name for name, (_, said) in damage.items() if not any(re.match(said, line) for line in lines)}


def test_what_was_planted_is_found(copied, all_is_large):
    path, artifacts = copied
    assert len(DAMAGE) >= 25 and check(path, artifacts=artifacts, full=True) == check(path, artifacts=artifacts) == []
    plant(path, *DAMAGE.values())
    found = check(path, artifacts=artifacts, full=True)
    assert not_found(found, DAMAGE) == set() and all("\n" not in line for line in found)
    assert not_found(check(path, artifacts=artifacts), DAMAGE) <= ONLY_FULL


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGE)
def test_each_damage_alone_is_found(copied, all_is_large, name):
    path, artifacts = copied
    plant(path, DAMAGE[name])
    for full in (True, False)[: 1 if name in ONLY_FULL else 2]:
        assert not_found(check(path, artifacts=artifacts, full=full), {name: DAMAGE[name]}) == set()


@pytest.mark.parametrize(
    ("sql", "said", "last"),
    [
        (
            "INSERT INTO dictionaries FROM dictionaries",
            r"dictionaries: \d rows?,.*expected one row of each key",
            r"what is said above keeps more from",
        ),
        (first("windows", "start = 2147483647"), r"windows: rows that cannot be reckoned with \(.*; expected ", ""),
        (
            "UPDATE dictionaries SET n_layers = 2147483647",
            r"dictionaries: \d rows?,.*expected n_features features in each of n_layers",
            "",
        ),
        (
            "UPDATE word_statistics SET dict_id = 'a' || dict_id",
            r"word_statistics: \d rows?,.*expected dict_id of a row of dictionaries",
            "",
        ),
    ],
)
def test_what_keeps_questions_from_being_asked_is_said(copied, sql, said, last):
    plant(copied[0], (sql, ""))
    found = check(copied[0], full=True)
    assert any(re.match(said, line) for line in found) and re.match(last, found[-1]) and all("\n" not in line for line in found)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DROP TABLE path_lengths", "path_lengths is gone"),
        ("DROP VIEW feature_cards", "feature_cards is gone"),
        ("DROP MACRO wilson", "wilson is gone"),
        ("ALTER TABLE prune_curves DROP COLUMN n_edges", "prune_curves.n_edges is gone"),
        ("ALTER TABLE features ALTER layer DROP NOT NULL", "features.layer is INTEGER; expected INTEGER NOT NULL"),
        (
            "CREATE TABLE other AS FROM loaded_artifacts; DROP TABLE loaded_artifacts; ALTER TABLE other RENAME TO loaded_artifacts;"
            " ALTER TABLE loaded_artifacts ALTER artifact_key SET NOT NULL; ALTER TABLE loaded_artifacts ALTER made_at SET NOT NULL",
            "loaded_artifacts is another one than the schema makes",
        ),
        ("ALTER TABLE prune_curves ALTER n_edges TYPE VARCHAR", "prune_curves.n_edges is VARCHAR; expected BIGINT"),
        (
            "CREATE OR REPLACE VIEW window_counts AS SELECT * REPLACE (0::BIGINT AS n_contexts, n_documents::BIGINT AS n_documents) FROM"
            " (SELECT dict_id, layer, feature, n_contexts, n_documents, density, max_activation, dead FROM features)",
            "window_counts is another one than the schema makes",
        ),
    ],
)
def test_a_table_that_is_gone_or_another_is_said(database, sql, said):
    plant(database, (sql, ""))
    assert check(database) == [said]


def beside(path, *, experiments, stage_runs):
    """What a check says of records, alone."""
    with workbench(inspected=path) as connection:
        connection.execute("USE inspected")
        return [str(problem) for problem in against_records(connection, experiments, stage_runs)]


def goes_on(records):
    """Records, of which a further run goes on, which may bring in what others lack."""
    run = {**records["stage_runs"][0], "run_id": "goes-on", "status": "running", "started_at": "2999-01-01T00:00:00+00:00"}
    return records | {"stage_runs": [*records["stage_runs"], run]}


@pytest.mark.parametrize("seed", range(8))
def test_keys_that_stand_twice_are_where_runs_overlap(seed):
    """Runs of rising keys in any order, of which some are there again elsewhere, or with an unknown value: against all rows grouped."""
    rng = random.Random(seed)
    keys = sorted({(rng.choice("ab"), rng.randrange(4), rng.randrange(5), rng.choice(["", "~"])) for _ in range(60)})
    ends = sorted(rng.sample(range(1, len(keys)), seed))
    runs = [keys[start:end] for start, end in zip([0, *ends], [*ends, len(keys)], strict=True)]
    twice = rng.sample(keys, seed % 3)
    rows = [key for run in rng.sample(runs, len(runs)) for key in run] + twice
    table = SimpleNamespace(name="t", key=("a", "b", "c", "d"))
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (a VARCHAR, b INTEGER, c INTEGER, d VARCHAR)")
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
        found = keys_that_may_stand_twice(connection, table)
        grouped = f"SELECT a, b, c, d FROM t WHERE {found} GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL"
        assert connection.execute(grouped).fetchall() == sorted(twice)
        assert (found == "false") == (not twice)
        connection.execute("INSERT INTO t VALUES ('a', NULL, 0, '')")
        assert keys_that_may_stand_twice(connection, table) == "true"


def test_records_of_the_workspace_are_those_of_the_database(made, copied):
    """Those of runs that go on, and of runs that began after all that the database has, come later. Of an experiment that ran on two machines a merged
    database has the earlier time."""
    path, _ = copied
    records = Workspace(made.workspace).whole_records()
    last = max(record["started_at"] for record in records["stage_runs"])
    later = {**records["stage_runs"][0], "run_id": "later", "started_at": "2999-01-01T00:00:00+00:00"}
    assert last < later["started_at"] and check(path, **records) == []
    assert beside(path, **records | {"stage_runs": [*records["stage_runs"], later]}) == []
    earlier, behind = (f"UPDATE experiments SET created_at = created_at {by} INTERVAL 1 DAY" for by in "-+")
    plant(path, (earlier, ""))
    assert beside(path, **records) == []
    for later in ((behind, ""), (behind, "")), (("UPDATE experiments SET created_at = NULL", ""),):
        plant(path, *later)
        assert ["not later" in line for line in beside(path, **records)] == [True]
    without = "UPDATE experiments SET created_at = TIMESTAMP '2026-01-01', sweep = NULL, swept = NULL"
    plant(path, (without, ""))
    assert beside(path, **records) and beside(path, **goes_on(records)) == []
    plant(
        path,
        ("UPDATE stage_runs SET key = 'another' WHERE rowid = (SELECT min(rowid) FROM stage_runs)", ""),
        ("DELETE FROM stage_runs WHERE started_at < (SELECT max(started_at) FROM stage_runs) AND key <> 'another'", ""),
        ("UPDATE experiments SET spec_yaml = 'name: other' WHERE experiment = 'synthetic'", ""),
    )
    found = [line for line in check(path, **records) if "record" in line]
    assert found == beside(path, **records)
    assert re.match(r"experiments: 2 rows, such as experiment synthetic, .*expected a row as each record", found[0])
    assert re.match(r"stage_runs: \d+ rows, .*; expected a row as each record", found[1]) and len(found) == 2


def test_records_that_the_last_load_brought_in_are_there(made, copied):
    """Before it nobody knows: a load that was killed has brought none in. A run that had ended goes on no more."""
    path, _ = copied
    records = Workspace(made.workspace).whole_records()
    last = max(records["stage_runs"], key=lambda record: record["started_at"])
    loaded = {**last, "run_id": "loaded", "stage": "database", "seconds": 7200.0}
    after = records | {"stage_runs": [*records["stage_runs"], loaded]}
    goes_on = "UPDATE stage_runs SET status = 'running', seconds = NULL WHERE stage = 'train' AND experiment = 'synthetic'"
    plant(
        path, (goes_on, ""), ("INSERT INTO stage_runs BY NAME SELECT * REPLACE ('loaded' AS run_id) FROM stage_runs LIMIT 1", "")
    )
    assert [
        re.match(r"stage_runs: 1 row, such as run_id synthetic-train", line) is not None for line in beside(path, **records)
    ] == [True]
    plant(path, ("DELETE FROM stage_runs", ""), ("DELETE FROM experiments", ""))
    assert beside(path, **records) == []
    assert [line.split(",")[0] for line in beside(path, **after)] == [
        "experiments: 2 rows",
        f"stage_runs: {len(after['stage_runs'])} rows",
    ]


def test_a_record_of_a_migration_that_is_gone_is_said(database):
    """By whoever brings it up to date, as commands do in its project."""
    plant(database, ("DELETE FROM schema_migrations WHERE name = '0057_fitted_scores.sql'", ""))
    with pytest.raises(CltdbError, match="no record of migration 0057_fitted_scores.sql .*do this: run `cltdb db rebuild`"):
        plant(database)


def test_records_that_are_gone_are_said(made, copied, monkeypatch):
    """Of runs that made what is in the workspace, or that alone tell what an experiment used; those of another machine, in a merged database,
    were never there."""
    records = Workspace(made.workspace).whole_records()
    assert lost_records(made) == []
    plant(copied[0], ("INSERT INTO loaded_artifacts VALUES ('imported', '2026-11-01T00:00:00')", ""))
    [problem] = lost_records(made._replace(database=Path(copied[0])))
    assert problem.table == "loaded_artifacts" and problem.example == {"artifact_key": "imported"}
    plant(copied[0], ("DELETE FROM loaded_artifacts WHERE artifact_key = 'imported'", ""))
    row = "INSERT INTO stage_runs BY NAME SELECT * REPLACE ('{0}' AS run_id, '{0}' AS key, {1} AS host) FROM stage_runs LIMIT 1"
    plant(copied[0], (row.format("elsewhere", "'another machine'"), ""))
    assert lost_records(made._replace(database=Path(copied[0]))) == []
    plant(copied[0], (row.format("cached", "host"), ""))
    [problem] = lost_records(made._replace(database=Path(copied[0])))
    assert problem.table == "stage_runs" and problem.example == {"run_id": "cached"}
    kept = {"experiments": records["experiments"], "stage_runs": records["stage_runs"][1:]}
    monkeypatch.setattr(Workspace, "whole_records", lambda self: kept)
    assert [problem.example for problem in lost_records(made)] == [{"run_id": records["stage_runs"][0]["run_id"]}]
    monkeypatch.setattr(Workspace, "whole_records", lambda self: dict.fromkeys(records, []))
    assert [(table, n) for table, n, *_ in lost_records(made)] == [("stage_runs", 9), ("experiments", 2)]
    monkeypatch.setattr(Workspace, "artifacts", lambda self: [])
    assert lost_records(made) == []


def test_nothing_is_found_in_what_later_artifacts_replaced(database, artifacts, tmp_path):
    """Windows as an earlier cltdb harvested them, a training that is not finished, and explanations of which some were made again."""
    again = world.explain_tables(text="made again")
    some = {table: [row for row in rows if row["layer"] == 0] for table, rows in again.items()}
    newer = write_artifact(tmp_path, "newer", some, started_at="2026-02-01T00:00:00+00:00")
    load_artifact(database, key=newer[0], directory=newer[1])
    assert any("made again" in row for row in contents(database)["explanations"])
    assert check(database, artifacts=[*artifacts, newer], full=True) == []
    plant(database, ("UPDATE explanations SET text = 'other' WHERE text LIKE '%made again%' AND feature = 0", ""))
    plant(database, ("DELETE FROM explanations WHERE layer = 1 AND feature = 0", ""))
    found = [line for line in check(database, artifacts=[*artifacts, newer]) if line.startswith("explanations: ")]
    assert [line.split("expected the rows of ")[1] for line in found] == [str(dict(artifacts)["explain-key"]), str(newer[1])]


def test_scores_of_an_explanation_that_a_later_artifact_does_not_make_are_sound(database, artifacts, tmp_path):
    gone = [{**row, "status": "too_few_contexts", "text": None} for row in world.explain_tables()["explanations"][:1]]
    newer = write_artifact(tmp_path, "newer", {"explanations": gone}, started_at="2026-02-01T00:00:00+00:00")
    load_artifact(database, key=newer[0], directory=newer[1])
    with connect(database) as connection:
        [(n,)] = connection.execute(
            "SELECT count(*) FROM scores JOIN explanations AS e USING (dict_id, layer, feature, side, explainer) WHERE e.status <> 'ok'"
        ).fetchall()
    assert n and check(database, artifacts=[*artifacts, newer], full=True) == []


def test_what_is_rare_and_sound(copied):
    """A run that was killed, of which nobody knows how long it took; a token of some bytes, which tokenizers spell in signs of their own; an earlier
    revision of a model, with fewer tokens."""
    path, _ = copied
    plant(
        path,
        (first("stage_runs", "status = 'killed', error = 'the process ended', seconds = NULL"), ""),
        (first("group_prompts", "target = '北京', target_token = 3"), ""),
        ("UPDATE vocabulary SET string = 'åĮĹ' WHERE token = 3", ""),
        ("INSERT INTO models BY NAME SELECT * REPLACE ('earlier' AS revision, 2 AS vocab_size) FROM models LIMIT 1", ""),
    )
    assert not [line for line in check(path) if re.search("how long it took|first token of target|row of vocabulary", line)]


def test_an_artifact_that_was_made_again_or_is_gone_in_part(database, artifacts, tmp_path):
    copies = [(key, shutil.copytree(directory, tmp_path / key)) for key, directory in artifacts]
    (tmp_path / "train-key/tables/metrics/part.parquet").write_bytes(b"x" * 100)
    (tmp_path / "explain-key/manifest.json").write_text('{"started_at": "2026-02-02T00:00:00+00:00"}')
    damaged, again = check(database, artifacts=copies)
    assert re.search(r"train-key.*metrics", damaged) and "artifact explain-key was made again at 2026-02-02" in again


def test_a_load_that_is_not_finished_is_said(database):
    plant(
        database,
        ("UPDATE loaded_parts SET complete = false WHERE part = 'nodes/part'", ""),
        ("INSERT INTO stale_groups (derived, dict_id, layer) VALUES ('edges_into', 'd', 0)", ""),
    )
    for records in ({}, world.RECORDS):
        assert [line.partition(":")[0] for line in check(database, **records)][:2] == ["loaded_parts", "stale_groups"]


def test_what_a_killed_check_spilled_goes_with_the_next_and_what_a_living_one_needs_stays(database):
    left = database.with_name(f".{database.name}.spill-left")
    left.mkdir()
    (left / "duckdb_temp_storage-0.tmp").write_bytes(b"rows")
    with workbench(inspected=database):
        [own] = database.parent.glob(f".{database.name}.spill-*")
        assert own != left and check(database) == [] and own.is_dir()
    assert not list(database.parent.glob(f".{database.name}.spill-*"))


def test_tables_of_a_users_own_are_no_problem_and_outlive_a_rebuild(database, artifacts):
    with connect(database, write=True) as connection:
        connection.execute(
            """CREATE TABLE "my notes" AS SELECT 1 AS n, [2] AS more; CREATE MACRO next(x) AS x + 1;
            CREATE VIEW of_notes AS SELECT next(n) AS m FROM "my notes"; CREATE VIEW mine AS FROM of_notes;
            CREATE SCHEMA own; CREATE TABLE own.features AS SELECT 3 AS k"""
        )
    assert check(database) == []
    read_all(database)
    with connect(database, write=True) as connection:  # and what was paid for, also where an earlier cltdb made the database
        connection.execute(
            "INSERT INTO text_embeddings VALUES ('small', md5('paid'), [1]); DELETE FROM schema_migrations WHERE name = '0061_stems.sql'"
        )
    assert rebuild(database, artifacts=artifacts[:2], **world.RECORDS) == []  # which checks it
    with connect(database) as connection:
        assert connection.execute("SELECT model FROM text_embeddings").fetchall() == [("small",)]
        assert connection.execute('SELECT n, more, m, k FROM "my notes", mine, own.features').fetchall() == [(1, [2], 2, 3)]


def test_an_artifact_that_was_made_again_by_itself_is_said_before_what_refers_to_it(database, artifacts):
    """As after `cltdb run SPEC --force harvest --only harvest`, until stage database runs."""
    with connect(database) as connection:
        [(key,)] = connection.execute("SELECT DISTINCT artifact_key FROM features WHERE dict_id = ?", [world.DICT]).fetchall()
    unload_artifact(database, key=key)
    [directory] = [directory for one, directory in artifacts if one == key]
    first, *others = check(database, artifacts=artifacts)
    assert first.startswith(f"{directory} is not loaded, and what refers to its rows") and "stage database loads" in first
    assert others and all("of a row of features" in line for line in others)
    load_artifacts(database, artifacts)
    assert check(database, artifacts=artifacts) == []


def test_a_rebuild_keeps_what_a_users_own_tables_demand(database, artifacts, caplog):
    """Constraints, defaults, sequences that go on, indexes and comments; where rows do not meet a constraint, rows come before it."""
    with connect(database, write=True) as connection:
        connection.execute(
            """CREATE SCHEMA own; CREATE SEQUENCE own.turns START 5 INCREMENT 2;
            CREATE TYPE own.sort AS ENUM ('a', 'it''s'); CREATE TYPE "a ""pair" AS STRUCT(s own.sort, n DECIMAL(4, 1)); COMMENT ON TYPE own.sort IS 'sorts';
            CREATE VIEW pairs AS SELECT {'s': 'it''s', 'n': 2}::"a ""pair" AS pair;
            CREATE TABLE own.runs(
                id INTEGER DEFAULT nextval('own.turns') PRIMARY KEY, kind ENUM('a', 'b') NOT NULL, "n ""o" INTEGER DEFAULT 3 CHECK ("n ""o" > 0),
                twice INTEGER GENERATED ALWAYS AS ("n ""o" * 2)
            );
            INSERT INTO own.runs(kind) VALUES ('a'), ('b'); CREATE UNIQUE INDEX of_runs ON own.runs("n ""o", id);
            CREATE TABLE own.part(run INTEGER REFERENCES own.runs(id), day DATE); INSERT INTO own.part VALUES (7, '9999-12-31');
            COMMENT ON TABLE own.runs IS 'the user''s'; COMMENT ON COLUMN own.runs.kind IS 'a or b';
            CREATE MACRO own.wilson(x) AS x; CREATE VIEW sizes AS SELECT * REPLACE (own.wilson(id) AS id) FROM own.runs; COMMENT ON VIEW sizes IS 'of runs';
            CREATE TABLE due(at_last TIMESTAMPTZ CHECK (at_last >= now())); INSERT INTO due VALUES (now())"""
        )
    assert rebuild(database, artifacts=artifacts, **world.RECORDS) == [] and check(database) == []
    assert [message[:83] for message in caplog.messages] == [
        '"main"."due", which is your own, has lost its constraints in the database made anew'
    ]
    with connect(database, write=True) as connection:
        assert connection.execute("FROM sizes ORDER BY ALL").fetchall() == [(5, "a", 3, 6), (7, "b", 3, 6)]
        assert connection.execute("SELECT run, day, at_last < now() FROM own.part, due").fetchall() == [
            (7, date(9999, 12, 31), True)
        ]
        assert connection.execute("SELECT pair, 'a'::own.sort FROM pairs").fetchall() == [
            ({"s": "it's", "n": Decimal("2.0")}, "a")
        ]
        assert connection.execute("SELECT comment FROM duckdb_types() WHERE type_name = 'sort'").fetchall() == [("sorts",)]
        connection.execute("INSERT INTO own.runs(kind) VALUES ('a')")
        assert connection.execute("SELECT max(id) FROM own.runs").fetchone() == (9,)
        for broken in (
            "INSERT INTO own.runs VALUES (5, 'a', 1)",
            "INSERT INTO own.runs(kind) VALUES ('c')",
            "INSERT INTO own.runs VALUES (1, 'a', 0)",
            "INSERT INTO own.part VALUES (8, NULL)",
            "DROP TABLE own.runs",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(broken)
        assert connection.execute("SELECT index_name, is_unique FROM duckdb_indexes()").fetchall() == [("of_runs", True)]
        said = "SELECT comment FROM duckdb_{0}s() WHERE {0}_name = '{1}' AND schema_name IN ('own', 'main')"
        asked = [("table", "runs"), ("column", "kind"), ("view", "sizes")]
        found = [
            connection.execute(said.format(*one) + " AND comment IN ('the user''s', 'a or b', 'of runs')").fetchall()
            for one in asked
        ]
        assert found == [[("the user's",)], [("a or b",)], [("of runs",)]]


def test_a_rebuild_says_what_of_a_users_own_it_cannot_keep(database, artifacts, tmp_path, caplog):
    with connect(database, write=True) as connection:
        connection.execute("CREATE TABLE gone AS SELECT 1 AS n; CREATE VIEW without AS FROM gone; DROP TABLE gone")
    made = {"artifacts": artifacts[:2], **world.RECORDS}
    assert rebuild(database, **made) == []
    [said] = caplog.messages
    assert said.startswith('"main"."without", which is your own, is not in the database made anew: Catalog Error')
    caplog.clear()
    assert rebuild(tmp_path / "new.duckdb", **made) == [] and caplog.messages == []
    database.write_bytes(b"no database" * 1000)
    assert rebuild(database, **made) == []  # which checks it
    assert "embeddings, and tables of your own, are not taken over: " in caplog.text and "damaged database" in caplog.text


def test_a_rebuild_proves_itself(database, artifacts, tmp_path):
    """What is wrong in artifacts never takes the place of a database that is sound; where there is none, it is said."""
    before, (model, train, _, harvest, *_) = contents(database), artifacts
    wrong = write_artifact(tmp_path, harvest[0], {"features": [row | {"density": 3.0} for row in world.feature_table()]})
    made = {"artifacts": [model, train, wrong], **world.RECORDS}
    with pytest.raises(
        CltdbError, match="problems in what was made .*expected density from 0 to 1.*expected none, as in the database"
    ):
        rebuild(database, **made)
    assert contents(database) == before and rebuild(database, **made | {"artifacts": [model, train, harvest]}) == []
    database.unlink()
    assert any("expected density from 0 to 1" in line for line in rebuild(database, **made)) and database.is_file()

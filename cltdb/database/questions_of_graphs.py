"""Questions of `cltdb db check` about graphs, their paths, interventions, and groups of prompts."""

from cltdb.database.question import Question

QUESTIONS = (
    *(
        Question(
            "graphs",
            f"""SELECT graph_id, n_{part}, coalesce(n, 0) AS found FROM graphs
            LEFT JOIN (SELECT graph_id, count(*) AS n FROM {part} GROUP BY ALL) USING (graph_id) WHERE n_{part} <> coalesce(n, 0)""",
            f"as many {part} as n_{part} says",
        )
        for part in ("nodes", "edges")
    ),
    Question(
        "nodes",
        """SELECT n.graph_id, n.node_id, g.dict_id, n.layer, n.feature FROM nodes AS n JOIN graphs AS g USING (graph_id)
        SEMI JOIN features AS any_of ON any_of.dict_id = g.dict_id
        ANTI JOIN features AS f ON f.dict_id = g.dict_id AND f.layer = n.layer AND f.feature = n.feature WHERE n.kind = 'feature'""",
        "a row of features for every node of kind feature",
    ),
    Question(
        "prune_curves",
        """SELECT c.graph_id, c.node_threshold, c.edge_threshold, c.n_nodes, g.n_nodes AS of_nodes, c.n_edges, g.n_edges AS of_edges
        FROM prune_curves AS c JOIN graphs AS g USING (graph_id) WHERE c.n_nodes > g.n_nodes OR c.n_edges > g.n_edges""",
        "no more nodes and edges than the graph has",
    ),
    Question(
        "interventions",
        """SELECT intervention_id, model_id FROM interventions ANTI JOIN models USING (model_id)
        WHERE model_id IS NOT NULL AND dict_id IN (SELECT dict_id FROM dictionaries)""",
        "model_id of a row of models",
    ),
    Question(
        "supernodes",
        """SELECT s.supernode_id, s.node_id FROM (SELECT supernode_id, graph_id, unnest(node_ids) AS node_id FROM supernodes) AS s
        ANTI JOIN nodes AS n USING (graph_id, node_id)""",
        "nodes of its graph",
    ),
    Question(  # of graphs in bfloat16 sums have three digits, as the residues of most of their nodes say
        "nodes",
        """SELECT graph_id, node_id, kind, layer, position, feature, pre_activation, bias + weights AS expected FROM (
            SELECT n.*, weights, greatest(abs(pre_activation - bias - weights) - dropped_mass, 0) AS rest, abs(pre_activation) + mass AS size,
                   median(rest / size) OVER (PARTITION BY graph_id) AS usual
            FROM nodes AS n JOIN (FROM graphs WHERE token_strings IS NULL) AS g USING (graph_id) JOIN (
                SELECT graph_id, target_id AS node_id, sum(weight) AS weights, sum(abs(weight)) AS mass FROM edges GROUP BY ALL)
            USING (graph_id, node_id) WHERE n.expanded)
        WHERE rest > greatest(1e-4, 100 * usual) * size""",
        "the sum of bias and of the edges that enter it as pre_activation",
        slow=True,
    ),
    Question(
        "nodes",
        "SELECT graph_id, sum(probability) AS probabilities FROM nodes WHERE kind = 'logit' GROUP BY ALL HAVING sum(probability) > 1 + 1e-3",
        "probabilities of logits that add up to at most 1",
    ),
    Question(
        "prune_curves",
        """SELECT graph_id, a.node_threshold, a.n_nodes, a.n_edges, b.node_threshold AS higher, b.n_nodes AS nodes_there, b.n_edges AS edges_there
        FROM prune_curves AS a JOIN prune_curves AS b USING (graph_id, edge_threshold)
        WHERE a.node_threshold < b.node_threshold AND (a.n_nodes > b.n_nodes OR a.n_edges > b.n_edges)""",
        "no more nodes and edges at a lower threshold",
    ),
    Question(
        "paths",
        """WITH found AS (
            SELECT graph_id, path_id, count(*) AS n, product(e.weight / if(step > 0, n.activation, 1)) AS expected
            FROM (SELECT DISTINCT graph_id, path_id, step, source_id, target_id FROM path_steps)
            JOIN edges AS e USING (graph_id, source_id, target_id) JOIN nodes AS n ON n.graph_id = e.graph_id AND n.node_id = e.source_id GROUP BY ALL
        )
        SELECT graph_id, path_id, rank, weight, expected FROM paths JOIN found USING (graph_id, path_id)
        JOIN (SELECT graph_id, path_id, max(step) + 1 AS n FROM path_steps GROUP BY ALL) USING (graph_id, path_id, n)
        WHERE abs(weight - expected) > 1e-5 * abs(expected)""",
        "the product of its edges, of each but the first per unit of activation of its source, as weight",
        slow=True,
    ),
    Question(
        "paths",
        "SELECT graph_id, target_id, sum(share) AS shares FROM paths GROUP BY ALL HAVING sum(share) > 1 + 1e-6",
        "shares of one target that add up to at most 1",
    ),
    Question(
        "paths",
        "SELECT graph_id, target_id, count(*) AS paths, max(rank) AS ranks, count(DISTINCT rank) AS different FROM paths GROUP BY ALL"
        " HAVING paths <> ranks OR paths <> different",
        "ranks 1, 2, 3, … without a gap",
    ),
    Question(
        "path_steps",
        """SELECT s.*, e.weight FROM (
            SELECT graph_id, path_id, step, source_id, target_id, sum(input_factor * weight_factor) AS routes,
                   sum(abs(input_factor * weight_factor)) AS mass
            FROM path_steps GROUP BY ALL) AS s
        JOIN edges AS e USING (graph_id, source_id, target_id)
        WHERE abs(s.routes - e.weight) > 1e-3 * abs(e.weight) + 1e-4 * s.mass + 1e-6""",
        "routes that add up to the weight of their edge",
        slow=True,
    ),
    Question(
        "group_overlaps",
        """SELECT n.groups_id, n.layer, n.label_a, n.label_b, n.keyed_by, n.weighting, n.null_kind, o.value AS overlap, n.value, n.corrected
        FROM group_overlaps AS n LEFT JOIN group_overlaps AS o ON o.null_kind = 'none' AND o.groups_id = n.groups_id AND o.layer = n.layer
            AND o.label_a IS NOT DISTINCT FROM n.label_a AND o.label_b IS NOT DISTINCT FROM n.label_b
            AND o.keyed_by = n.keyed_by AND o.weighting = n.weighting
        WHERE n.null_kind <> 'none' AND (o.n IS NULL OR abs(o.value - n.value - n.corrected) > 1e-9)""",
        "beside each null the overlap of one concept, and their difference",
    ),
    Question(
        "group_prompts",
        """SELECT groups_id, concept, count(*) AS n, any_value(labels) AS labels FROM group_prompts
        JOIN (SELECT groups_id, count(DISTINCT label) AS labels FROM group_prompts GROUP BY ALL) USING (groups_id)
        GROUP BY groups_id, concept HAVING count(*) <> any_value(labels)""",
        "every concept under each label",
    ),
    *(
        Question(
            table,
            f"SELECT groups_id, {label} FROM {table} AS t ANTI JOIN group_prompts AS p ON p.groups_id = t.groups_id AND p.label = t.{label}"
            f" WHERE {label} IS NOT NULL AND groups_id IN (SELECT groups_id FROM group_prompts)",
            "a label of its prompts",
        )
        for table, names in {
            "group_overlaps": ("label_a", "label_b"),
            "label_features": ("label",),
            "label_scores": ("label",),
            "substitutions": ("label_from", "label_to"),
        }.items()
        for label in names
    ),
    Question(
        "label_features",
        """SELECT groups_id, label, layer, count(*) AS features, max(rank) AS ranks, count(DISTINCT rank) AS distinct_ranks FROM label_features
        GROUP BY ALL HAVING count(*) <> max(rank) OR count(*) <> count(DISTINCT rank)""",
        "ranks 1, 2, 3, … without a gap",
    ),
    Question(
        "substitutions",
        """SELECT groups_id, label_from, label_to, count(*) FILTER (part = 'choice' AND is_best) AS best_points,
               count(DISTINCT (n_features, positions, suppress, boost)) FILTER (is_best AND control = 'none') AS measured_points
        FROM substitutions GROUP BY ALL
        HAVING count(*) FILTER (part = 'choice' AND is_best) <> 1
            OR count(DISTINCT (n_features, positions, suppress, boost)) FILTER (is_best AND control = 'none') <> 1""",
        "one best point of each pair of labels, which is the one that is measured",
    ),
    Question(
        "substitutions",
        """SELECT groups_id, label_from, label_to, part, min(n) AS least, max(n) AS most FROM substitutions
        GROUP BY groups_id, label_from, label_to, part HAVING min(n) < max(n)""",
        "as many prompts at every point",
    ),
    Question(
        "path_lengths",
        "SELECT graph_id, sum(share) AS shares FROM path_lengths GROUP BY ALL HAVING sum(share) > 1 + 1e-6",
        "shares of one graph that add up to at most 1",
    ),
    Question(
        "graphs",
        """SELECT graph_id, g.model_id, d.model_id AS of_dictionary FROM graphs AS g JOIN dictionaries AS d USING (dict_id) WHERE g.model_id <> d.model_id""",
        "the model of its dictionary",
    ),
    Question(
        "graphs",
        """SELECT graph_id, n_features_active, n FROM graphs JOIN
        (SELECT graph_id, count(*) AS n FROM nodes WHERE kind = 'feature' GROUP BY ALL) USING (graph_id) WHERE n_features_active < n""",
        "no more nodes of features than were active",
    ),
    Question(
        "graphs",
        """SELECT graph_id, error_share, errors / total AS expected FROM graphs JOIN (
            SELECT graph_id, sum(influence) AS total, coalesce(sum(influence) FILTER (kind = 'error'), 0) AS errors FROM nodes GROUP BY ALL)
        USING (graph_id) WHERE token_strings IS NULL AND abs(error_share * total - errors) > 1e-6 * total""",
        "the share of errors in the influence of its nodes as error_share",
    ),
    Question(
        "graphs",
        """SELECT graph_id, mean_path_length, mean FROM graphs JOIN (SELECT graph_id, sum(length * share) AS mean FROM path_lengths GROUP BY ALL)
        USING (graph_id) WHERE token_strings IS NULL AND abs(mean_path_length - mean) > 1e-6 * mean""",
        "the mean of path_lengths as mean_path_length",
    ),
    Question(
        "graphs",
        """SELECT graph_id, node_threshold, edge_threshold, pruned_replacement_score, c.replacement_score FROM graphs AS g
        JOIN prune_curves AS c USING (graph_id, node_threshold, edge_threshold)
        WHERE token_strings IS NULL AND (abs(pruned_replacement_score - c.replacement_score) > 1e-9
           OR abs(pruned_completeness_score - c.completeness_score) > 1e-9)""",
        "the scores that prune_curves has at its thresholds",
    ),
    Question(
        "graphs",
        """SELECT graph_id, node_threshold, edge_threshold FROM graphs SEMI JOIN prune_curves AS any_of USING (graph_id)
        ANTI JOIN prune_curves AS c USING (graph_id, node_threshold, edge_threshold) WHERE token_strings IS NULL AND node_threshold IS NOT NULL""",
        "a row of prune_curves at its thresholds",
    ),
    *(
        Question(
            "graphs",
            f"""SELECT graph_id, n AS kept_{part}, c.n_{part} FROM graphs JOIN prune_curves AS c USING (graph_id, node_threshold, edge_threshold)
            JOIN (SELECT graph_id, count(*) FILTER (kept) AS n FROM {part} GROUP BY ALL) USING (graph_id)
            WHERE token_strings IS NULL AND n <> c.n_{part}""",
            f"as many kept {part} as prune_curves has at its thresholds",
        )
        for part in ("nodes", "edges")
    ),
    Question(
        "graphs",
        """SELECT graph_id, n_ablations, n FROM graphs JOIN (
            SELECT graph_id, count(*) AS n FROM interventions SEMI JOIN graphs USING (graph_id, artifact_key)
            WHERE mode = 'iterative' AND contains(intervention_id, '-ablate-') GROUP BY ALL) USING (graph_id) WHERE n_ablations <> n""",
        "as many ablations as n_ablations says",
    ),
    Question(
        "nodes",
        """SELECT graph_id, node_id, kind, layer, position, feature FROM (
            SELECT *, row_number() OVER (PARTITION BY graph_id ORDER BY list_position(['feature', 'error', 'embedding', 'logit'], kind),
                layer, position, feature, node_id) - 1 AS place FROM nodes SEMI JOIN (FROM graphs WHERE token_strings IS NULL) USING (graph_id))
        WHERE place <> node_id""",
        "features, errors, embeddings and logits by layer, position and feature, numbered from 0",
    ),
    Question(
        "nodes",
        """SELECT n.graph_id, n.node_id, n.position, n.token, g.tokens[n.position + 1] AS of_prompt FROM nodes AS n JOIN graphs AS g USING (graph_id)
        WHERE n.kind = 'embedding' AND n.token <> g.tokens[n.position + 1]""",
        "the token of the prompt at its position",
    ),
    Question(
        "paths",
        """SELECT graph_id, path_id, rank, weight, share, abs(weight) / share AS total FROM paths
        JOIN (SELECT graph_id, target_id, max(abs(weight) / share) AS most FROM paths WHERE share > 0 GROUP BY ALL) USING (graph_id, target_id)
        WHERE abs(abs(weight) - share * most) > 1e-5 * abs(weight) + 1e-12""",
        "shares in proportion to weights",
    ),
    Question(
        "paths",
        """SELECT p.graph_id, p.path_id, p.rank, p.weight, q.weight AS next FROM paths AS p JOIN paths AS q
        ON q.graph_id = p.graph_id AND q.target_id = p.target_id AND q.rank = p.rank + 1 WHERE abs(p.weight) < abs(q.weight) * (1 - 1e-6)""",
        "the strongest path first",
    ),
    Question(
        "path_steps",
        """SELECT a.graph_id, a.path_id, a.step, a.target_id, b.source_id AS next_source, p.target_id AS end_of_path
        FROM (SELECT DISTINCT graph_id, path_id, step, source_id, target_id FROM path_steps) AS a
        JOIN paths AS p USING (graph_id, path_id)
        LEFT JOIN (SELECT DISTINCT graph_id, path_id, step - 1 AS step, source_id FROM path_steps) AS b USING (graph_id, path_id, step)
        WHERE a.target_id <> coalesce(b.source_id, p.target_id)""",
        "steps that follow each other up to the end of their path",
    ),
    Question(
        "paths",
        "SELECT p.graph_id, p.path_id, p.rank FROM paths AS p ANTI JOIN path_steps AS s ON s.graph_id = p.graph_id AND s.path_id = p.path_id AND s.step = 0"
        " SEMI JOIN path_steps AS any_of ON any_of.graph_id = p.graph_id",
        "a first step",
    ),
    Question(
        "interventions",
        """SELECT i.intervention_id, i.graph_id, i.dict_id, g.dict_id AS of_graph FROM interventions AS i JOIN graphs AS g USING (graph_id)
        WHERE i.dict_id <> g.dict_id OR i.model_id <> g.model_id OR i.tokens <> g.tokens""",
        "dictionary, model and tokens of its graph",
    ),
    Question(
        "interventions",
        """SELECT i.intervention_id, i.prompt, graph_id, g.prompt AS of_graph FROM interventions AS i JOIN graphs AS g USING (graph_id)
        WHERE i.prompt <> g.prompt""",
        "the prompt of its graph",
    ),
    Question(
        "interventions",
        """SELECT intervention_id, graph_id, dict_id FROM interventions AS i WHERE artifact_key IN (SELECT artifact_key FROM graphs)
        AND (graph_id, artifact_key) NOT IN (SELECT (graph_id, artifact_key) FROM graphs)""",
        "a graph of its artifact",
    ),
    Question(
        "intervention_effects",
        """SELECT intervention_id, layer, position, feature, after, value FROM intervention_effects JOIN (
            SELECT intervention_id, s.layer, s.position, s.feature, s.value FROM (
                SELECT intervention_id, unnest(settings) AS s FROM interventions WHERE mode = 'iterative') WHERE s.operation = 'set')
        USING (intervention_id, layer, position, feature) WHERE abs(after - value) > 1e-4 * abs(value) + 1e-6""",
        "the value that was set",
    ),
    Question(
        "intervention_effects",
        """SELECT intervention_id, kind, layer, position, feature, token, before, expected FROM (
            SELECT e.*, coalesce(n.activation, n.pre_activation) AS expected, abs(before - expected) AS off,
                max(abs(expected)) OVER of_kind AS most, median(off) OVER of_kind AS usual
            FROM intervention_effects AS e JOIN interventions AS i USING (intervention_id)
            JOIN graphs AS g ON g.graph_id = i.graph_id AND g.artifact_key = i.artifact_key AND g.token_strings IS NULL
            JOIN nodes AS n ON n.graph_id = i.graph_id AND n.kind = e.kind AND n.position = e.position AND n.layer IS NOT DISTINCT FROM e.layer
                AND n.feature IS NOT DISTINCT FROM e.feature AND n.token IS NOT DISTINCT FROM e.token
            WINDOW of_kind AS (PARTITION BY i.graph_id, i.mode, e.kind))
        WHERE off > greatest(0.05 * most, 100 * usual)""",  # the model may run in fewer digits than its graph
        "what its graph has of that node as before",
    ),
    Question(
        "group_prompts",
        "SELECT groups_id, min(dict_id) AS dict_id, max(dict_id) AS other FROM group_prompts GROUP BY ALL HAVING min(dict_id) < max(dict_id)",
        "one dictionary of each comparison of labels",
    ),
    *(
        Question(
            table,
            f"SELECT groups_id, dict_id FROM {table} ANTI JOIN group_prompts USING (groups_id, dict_id)",
            "a comparison of labels that has prompts",
        )
        for table in ("group_overlaps", "label_features", "label_scores", "substitutions")
    ),
    Question(
        "group_prompts",
        """SELECT groups_id, concept, label, target, target_token, string FROM group_prompts JOIN dictionaries USING (dict_id)
        JOIN vocabulary AS v ON v.model_id = dictionaries.model_id AND v.token = target_token
        WHERE NOT starts_with(lower(trim(target)), lower(trim(string)))
          AND regexp_full_match(string, '[ -Z^-~]+') AND NOT starts_with(string, '<0x')""",  # others may be a tokenizer's spelling of bytes
        "the first token of target as target_token",
    ),
    Question(
        "group_overlaps",
        """SELECT groups_id, label_a, label_b, keyed_by, weighting, null_kind, count(*) AS layers, d.n_layers FROM group_overlaps
        JOIN dictionaries AS d USING (dict_id) GROUP BY ALL HAVING count(*) <> d.n_layers""",
        "a row for each layer",
    ),
    Question(
        "label_features",
        """SELECT a.groups_id, a.label, a.layer, a.feature, a.rank, a.contrast, b.contrast AS next FROM label_features AS a JOIN label_features AS b
        ON b.groups_id = a.groups_id AND b.label = a.label AND b.layer = a.layer AND b.rank = a.rank + 1 WHERE a.contrast < b.contrast - 1e-12""",
        "the feature of highest contrast first",
    ),
    Question(
        "label_scores",
        """SELECT groups_id, label, first_layer, n_features, n FROM label_scores AS s JOIN (
            SELECT s.groups_id, s.label, s.first_layer, count(DISTINCT (f.layer, f.feature)) AS n
            FROM (SELECT DISTINCT groups_id, label, first_layer FROM label_scores) AS s
            JOIN label_features AS f ON f.groups_id = s.groups_id AND f.label = s.label AND f.layer >= s.first_layer GROUP BY ALL)
        USING (groups_id, label, first_layer) WHERE n_features > n""",
        "no more features than the label has from that layer on",
    ),
    Question(
        "substitutions",
        """SELECT groups_id, label_from, label_to, n_features, positions, suppress, boost, s.rate_right, most FROM substitutions AS s JOIN (
            SELECT groups_id, label_from, label_to, max(rate_right) AS most FROM substitutions WHERE part = 'choice' GROUP BY ALL)
        USING (groups_id, label_from, label_to) WHERE part = 'choice' AND is_best AND rate_right < most""",
        "the highest rate_right of the half that chooses as best",
    ),
)

-- What two experiments have different in their specs.
-- Grain: one row per key.
-- Order: key.
-- Reads: experiments.
-- Parameters:
--   $experiment: text  the first experiment
--   $other: text       the second experiment
-- Example: -p experiment=quickstart -p other=gpt2-small
-- Of each experiment the newest spec. A value is as the spec has it in YAML, NULL where the spec does not name the key and the
-- default holds. Items of lists are numbered from 0.

WITH RECURSIVE newest AS (
    SELECT experiment, spec_yaml FROM experiments
    WHERE experiment IN ($experiment::VARCHAR, $other::VARCHAR)
    QUALIFY row_number() OVER (PARTITION BY experiment ORDER BY created_at DESC NULLS LAST, spec_hash) = 1
), line AS (
    SELECT experiment, n, text, len(text) - len(ltrim(text)) + CASE WHEN starts_with(ltrim(text), '- ') THEN 1 ELSE 0 END AS depth
    FROM (SELECT experiment, generate_subscripts(lines, 1) AS n, unnest(lines) AS text
          FROM (SELECT experiment, string_split(rtrim(spec_yaml, chr(10)), chr(10)) AS lines FROM newest))
), placed AS (
    SELECT l.experiment, l.n, any_value(l.text) AS text, max(p.n) AS parent
    FROM line AS l
    LEFT JOIN line AS p ON p.experiment = l.experiment AND p.n < l.n AND p.depth < l.depth
    GROUP BY l.experiment, l.n
), part AS (
    SELECT experiment, n, parent, coalesce('.' || nullif(regexp_extract(ltrim(text), '^(- )?([^ :]+):( |$)', 2), ''), '') AS name,
           regexp_replace(ltrim(text), '^(- )?([^ :]+:( |$))?', '') AS value, starts_with(ltrim(text), '- ') AS is_item,
           '[' || (row_number() OVER (PARTITION BY experiment, parent, is_item ORDER BY n) - 1) || ']' AS place
    FROM placed
), named AS (
    SELECT experiment, n, value, name AS key, name AS above FROM part WHERE parent IS NULL
    UNION ALL
    SELECT p.experiment, p.n, p.value,
           a.above || CASE WHEN p.is_item OR p.name = '' THEN p.place || p.name ELSE p.name END,
           a.above || CASE WHEN p.is_item OR p.name = '' THEN p.place ELSE p.name END
    FROM part AS p
    JOIN named AS a ON a.experiment = p.experiment AND a.n = p.parent
), mine AS (
    FROM named WHERE experiment = $experiment::VARCHAR AND value <> ''
), other AS (
    FROM named WHERE experiment = $other::VARCHAR AND value <> ''
)
SELECT key[2:] AS key, m.value, o.value AS other_value
FROM mine AS m
FULL JOIN other AS o USING (key)
WHERE m.value IS DISTINCT FROM o.value
ORDER BY ALL

-- Of label features: what works for the label, and what matching keeps. Of substitutions: ten draws of random features, the untouched model.

ALTER TABLE group_prompts ADD COLUMN kind VARCHAR;

COMMENT ON COLUMN group_prompts.kind IS 'Kind of question, such as capitals; NULL where the prompts name none.';

ALTER TABLE label_features ADD COLUMN effect DOUBLE;
ALTER TABLE label_features ADD COLUMN matched_share DOUBLE;

COMMENT ON TABLE label_features IS 'One row per label, layer and feature that makes answers ones of the label: the features of highest contrast among those that recur over its prompts and whose effect is above 0 (groups.label_features). Influence is that on the logit of the label''s answer less the mean of those of all labels'' answers. Key: groups_id, label, layer, feature. Replaced together: groups_id. Refers to: dictionaries (dict_id).';
COMMENT ON COLUMN label_features.effect IS 'What it adds to the logit of the label''s answer less the mean of those of all labels'' answers, along all paths of the prompt''s graph, all positions together: the mean over the label''s prompts (0 where it is not active). Influence has no sign, this has: below 0 a feature works against the label.';
COMMENT ON COLUMN label_features.auc_matched IS 'The same at equal token frequency (0 to 1). Tokens are put in classes by frequency, each a factor of two. Every two pieces are compared at the distribution over classes that both have, and count as much as the share of their tokens that this is. NULL where the label has no class in common with another one. Where matched_share is NULL, the row is an earlier cltdb''s, with another measure.';
COMMENT ON COLUMN label_features.matched_share IS 'Share of a piece''s tokens that matching keeps (0 to 1), the mean over pairs of pieces; NULL of rows made by an earlier cltdb.';

ALTER TABLE label_scores ADD COLUMN matched_share DOUBLE;

COMMENT ON COLUMN label_scores.matched_share IS 'As label_features.matched_share (0 to 1); NULL of rows made by an earlier cltdb.';

ALTER TABLE substitutions ADD COLUMN draw INTEGER;
ALTER TABLE substitutions ADD COLUMN n_suppressed INTEGER;
ALTER TABLE substitutions ADD COLUMN n_boosted INTEGER;
ALTER TABLE substitutions ALTER COLUMN n_features DROP NOT NULL;
ALTER TABLE substitutions ALTER COLUMN positions DROP NOT NULL;
ALTER TABLE substitutions ALTER COLUMN suppress DROP NOT NULL;
ALTER TABLE substitutions ALTER COLUMN boost DROP NOT NULL;

COMMENT ON TABLE substitutions IS 'One row per ordered pair of labels and grid point at which the features of one label were held down and those of the other set (groups.substitute): what the model answered to the prompts of the first, greedily. Of the concepts whose answers differ under the two labels, one half chooses the best point, on the other half it is measured beside its controls. Key: groups_id, label_from, label_to, part, control, draw, n_features, positions, suppress, boost. Replaced together: groups_id. Refers to: dictionaries (dict_id).';
COMMENT ON COLUMN substitutions.part IS 'One of choice or test: the half of the concepts on which the best point is chosen, with all points of the label features; the other half, with the best points and the controls.';
COMMENT ON COLUMN substitutions.control IS 'One of none, untouched, random or reverse: label features; nothing set; in the place of each label feature a random one of its layer that fires about as often and writes about as much (high times the norm of its decoder), at the best point of its own draw; at the best point of the label features, those of label_to held down and those of label_from set, which is a control of direction and no null.';
COMMENT ON COLUMN substitutions.draw IS 'Which draw of random features, 0 first; NULL of others.';
COMMENT ON COLUMN substitutions.n_features IS 'How many features of each label were asked for: those of highest contrast in label_features (at least 1); NULL of untouched.';
COMMENT ON COLUMN substitutions.n_suppressed IS 'How many features were held down (at least 0): fewer than n_features where the label has fewer, or shares some with label_to. NULL of rows made by an earlier cltdb.';
COMMENT ON COLUMN substitutions.n_boosted IS 'How many features were set (at least 0): fewer than n_features where the label has fewer. NULL of rows made by an earlier cltdb.';
COMMENT ON COLUMN substitutions.positions IS 'One of last or all: set from the prompt''s last position on, or at all positions after BOS; NULL of untouched.';
COMMENT ON COLUMN substitutions.suppress IS 'Value of the features that are held down, in multiples of label_features.high; NULL of untouched.';
COMMENT ON COLUMN substitutions.boost IS 'Value of the features that are set, in multiples of label_features.high; NULL of untouched.';
COMMENT ON COLUMN substitutions.is_best IS 'True of the point with the highest rate_right on the half that chooses (of equal ones that of least kl_nats; of random features that whose kl_nats is nearest to that of the label features), and of part test.';

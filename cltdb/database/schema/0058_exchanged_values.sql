-- Substitutions whose values are what features come to where a prompt's last token is exchanged (groups.substitute.values).

ALTER TABLE substitutions ADD COLUMN set_to VARCHAR;

COMMENT ON COLUMN substitutions.set_to IS 'One of multiples or exchanged: values are multiples of label_features.high, the same for all prompts; or a multiple of the change that each feature undergoes where the last token of the prompt alone is that of label_to, added to what it is; NULL of untouched, and of rows made by an earlier cltdb, which are all multiples.';
COMMENT ON COLUMN substitutions.suppress IS 'Value of the features that are held down, in multiples of label_features.high; with exchanged the same as boost; NULL of untouched.';
COMMENT ON COLUMN substitutions.boost IS 'Value of the features that are set, in multiples of label_features.high; with exchanged a multiple of the change of the features of both labels; NULL of untouched.';
COMMENT ON COLUMN substitutions.control IS 'One of none, untouched, random or reverse: label features; nothing set; in the place of each label feature a random one of its layer that fires about as often and writes about as much (high times the norm of its decoder), at the best point of its own draw; at the best point of the label features, those of label_to held down and those of label_from set (with exchanged: moved by as much the other way), which is a control of direction and no null.';

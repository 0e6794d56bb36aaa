-- What features write to the logits of chosen tokens.

ALTER TABLE features ADD COLUMN lens_logits STRUCT(token INTEGER, value FLOAT)[];

COMMENT ON COLUMN features.lens_logits IS 'What the feature writes to the logits of the tokens of harvest.lens_tokens, in the order given there, in the units of top_logits. NULL where none were asked for.';

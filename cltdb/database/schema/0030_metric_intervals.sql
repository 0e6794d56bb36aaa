-- Intervals of metrics that are estimates.

ALTER TABLE metrics ADD COLUMN ci_low DOUBLE;
ALTER TABLE metrics ADD COLUMN ci_high DOUBLE;

COMMENT ON COLUMN metrics.name IS 'Name of the quantity, such as fvu, l0 or ce_replacement, measured on ordinary tokens (see activations.exclude_tokens); names that begin with decoder_cosine_ are of the weights.';
COMMENT ON COLUMN metrics.ci_low IS 'Lower end of the 95 % interval of value, by bootstrap over features; NULL where none is computed.';
COMMENT ON COLUMN metrics.ci_high IS 'Upper end of the 95 % interval of value, by bootstrap over features; NULL where none is computed.';

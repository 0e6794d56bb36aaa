-- What was asked for, from which text_with can be made again: settings has the positions in the prompt alone.

ALTER TABLE interventions ADD COLUMN given VARCHAR[];

COMMENT ON COLUMN interventions.given IS 'What was asked for, each as option --feature of cltdb intervene takes it: LAYER:FEATURE@POS=VALUE. Where POS is * or has no end, such as 4:, new tokens are changed too. NULL of ablations by stage attribute, and of what was stored before this column.';
COMMENT ON COLUMN interventions.settings IS 'What was done to which features: layer, feature, position in the prompt (NULL: all positions), operation (set or scale) and value.';

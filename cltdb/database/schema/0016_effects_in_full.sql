-- What an intervention did to the answer, in full: probabilities beside logits, and the texts that follow without and with it.

ALTER TABLE interventions ADD COLUMN text_without VARCHAR;
ALTER TABLE interventions ADD COLUMN text_with VARCHAR;
ALTER TABLE intervention_effects ADD COLUMN probability_before DOUBLE;
ALTER TABLE intervention_effects ADD COLUMN probability_after DOUBLE;

COMMENT ON COLUMN interventions.text_without IS 'The tokens that follow the prompt without the intervention, as text; NULL where no continuation was asked for.';
COMMENT ON COLUMN interventions.text_with IS 'The tokens that follow the prompt with the intervention, as text; NULL where no continuation was asked for.';
COMMENT ON COLUMN intervention_effects.probability_before IS 'Of a logit: the token''s probability without the intervention (0 to 1). NULL for features, and for ablations of stage attribute.';
COMMENT ON COLUMN intervention_effects.probability_after IS 'Of a logit: the token''s probability with the intervention (0 to 1). NULL for features, and for ablations of stage attribute.';

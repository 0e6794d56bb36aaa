-- How well label features tell text with weights that are fitted, beside their plain sum.

ALTER TABLE label_scores ADD COLUMN fitted_auc DOUBLE;
ALTER TABLE label_scores ADD COLUMN fitted_auc_matched DOUBLE;

COMMENT ON COLUMN label_scores.fitted_auc IS 'As auc, of the sum with the weights that a logistic regression finds on the pieces of the label and of the others that are not held out (0 to 1); NULL of rows made by an earlier cltdb.';
COMMENT ON COLUMN label_scores.fitted_auc_matched IS 'As auc_matched, of the sum with these weights (0 to 1); NULL of rows made by an earlier cltdb.';

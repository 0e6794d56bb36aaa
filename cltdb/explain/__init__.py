"""Stage explain: a sentence per feature, by rules or a language model, and scores that say how far it predicts the feature."""

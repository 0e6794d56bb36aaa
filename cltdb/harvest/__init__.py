"""Stage harvest: statistics, contexts and direct logit effects of every feature, in one pass over text."""

-- Substitutions whose features are left alone at new tokens (groups.substitute.continued). Comments alone.

COMMENT ON COLUMN substitutions.positions IS 'One of last or all: set from the prompt''s last position on, or at all positions after BOS; with groups.substitute.continued false in both cases up to the prompt''s end, else at those of new tokens too; NULL of untouched.';
COMMENT ON COLUMN substitutions.rate_right IS 'Share whose likeliest next token is the answer of the concept under label_to (0 to 1); of an answer of several tokens its first, which other answers may share.';
COMMENT ON COLUMN substitutions.text_rate_right IS 'As rate_right, of any token of the greedy continuation (0 to 1), so of an answer of several tokens too its first alone; of part test.';

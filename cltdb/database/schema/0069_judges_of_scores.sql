-- Who judged a score, which queries read from the JSON of its details, a million texts, each time.

ALTER TABLE scores ADD COLUMN judge VARCHAR;
ALTER TABLE scores ALTER judge TYPE VARCHAR USING TRY(detail->>'judge');

COMMENT ON COLUMN scores.judge IS 'Who judged, as detail says: rule, words or language model; NULL where it does not say, as in scores of earlier versions. The loader makes it.';

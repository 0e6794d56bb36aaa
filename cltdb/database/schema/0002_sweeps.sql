-- Points of a sweep: experiments know the sweep they belong to and the values that were swept.

ALTER TABLE experiments ADD COLUMN sweep VARCHAR;
ALTER TABLE experiments ADD COLUMN swept VARCHAR;

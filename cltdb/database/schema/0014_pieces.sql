-- How far a group of rows that are made from others has come: large ones are put in by pieces, each in a transaction of its own.

ALTER TABLE stale_groups ADD COLUMN next_feature INTEGER DEFAULT 0;
ALTER TABLE stale_groups ADD COLUMN mark VARCHAR DEFAULT '';

COMMENT ON COLUMN stale_groups.next_feature IS 'Rows of features below it are made anew already.';
COMMENT ON COLUMN stale_groups.mark IS 'Another value each time that the group is marked: rows that were read before are then not put in.';

-- What the features of a dictionary read.

ALTER TABLE dictionaries ADD COLUMN reads VARCHAR;

COMMENT ON COLUMN dictionaries.reads IS 'One of mlp_input (the MLP''s own input), mlp_output or residual (the residual stream that the norm before the MLP reads): what features read; those of an sae also write there, others to the MLP output. NULL of dictionaries made by an earlier cltdb.';
COMMENT ON COLUMN dictionaries.kind IS 'clt (cross-layer: a feature writes to its own and all later layers), plt (per-layer: to its own layer only) or sae (per-layer, reconstructs what it reads).';

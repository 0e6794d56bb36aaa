-- What drives a feature from the embeddings, beside what it writes to the logits.

ALTER TABLE features ADD COLUMN top_embeddings STRUCT(token INTEGER, value FLOAT)[];
ALTER TABLE features ADD COLUMN bottom_embeddings STRUCT(token INTEGER, value FLOAT)[];

"""The engine of experiments: sections and keys, plans, runs, records, processes. It names no stage and knows no mathematics."""

"""An example of a stage: how often each letter begins a token of the model's vocabulary."""

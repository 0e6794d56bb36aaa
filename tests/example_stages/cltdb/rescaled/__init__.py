"""An example of a stage that stands for another: the model with other weights, which all later stages read."""

"""The linear model of one prompt: frozen attention and norms, edges, targets, and responses to interventions."""

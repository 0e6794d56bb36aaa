"""Groups of prompts, such as languages: what of a model's features they share."""

"""Asking language models through litellm: many requests at once, within the provider's limits and a budget, and no answer paid for twice."""

"""What tests are about, made here and nowhere else.

models        random models of every architecture, in memory or as `save_pretrained` writes them
dictionaries  random dictionaries
"""

"""The embedded toy world: facts, the text that states them, questions about them, and a small model trained on the text.

Read facts.py, text.py, tasks.py, train_model.py in that order; model/README.md is the model's card.
"""

from pathlib import Path

MODEL_DIR = Path(__file__).parent / "model"

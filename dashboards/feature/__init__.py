"""What the pages of features are made of: pure functions from rows to components."""

"""What the page Isolation is made of: figures and tables of frames."""

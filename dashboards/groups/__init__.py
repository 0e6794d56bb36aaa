"""What the page Groups is made of: figures and tables of frames."""

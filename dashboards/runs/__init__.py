"""What the pages of runs are made of: underway.py what runs now, as the workspace says; disk.py what is stored; parts.py and compare.py elements of frames."""

"""What is drawn on a frame: boxes, labels, bars, emoji."""

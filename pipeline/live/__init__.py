"""Where frames come from and where readings go. Knows nothing of nets or detectors."""

"""What labelled faces are: FER2013's CSV, class folders, FER+, the manifest."""

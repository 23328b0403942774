"""What export writes and Predictor opens: the model folder, its net, its calibration."""

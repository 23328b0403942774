"""Faces that are drawn, to try the pipeline without FER2013."""

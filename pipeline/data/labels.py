"""FER2013's classes and what the published set holds."""

# In index order, as the CSV's emotion column counts them (Goodfellow et al., "Challenges in Representation
# Learning: A report on three machine learning contests", 2013).
LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

IMAGE_SHAPE = (48, 48)  # height, width

# Images per Usage and label, in LABELS' order, counted in Kaggle's fer2013.csv (35,887 rows).
KNOWN_COUNTS = {
    "Training": (3995, 436, 4097, 7215, 4830, 3171, 4965),
    "PublicTest": (467, 56, 496, 895, 653, 415, 607),
    "PrivateTest": (491, 55, 528, 879, 594, 416, 626),
}

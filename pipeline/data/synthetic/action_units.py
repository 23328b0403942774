"""Facial action units: what each of the seven expressions is made of, and what each unit moves.

Units are numbered as in the Facial Action Coding System (Ekman, Friesen & Hager, 2002). Lengths are in units of half a
face's width (about 70 mm).
"""

from dataclasses import dataclass

import numpy as np

# Action units of the six basic expressions, at intensities 0..1 (FACS' A to E), one line per variant: Friesen & Ekman,
# "EMFACS-7: Emotional Facial Action Coding System" (1983), and the FACS Investigator's Guide (Ekman, Friesen & Hager,
# 2002), with the units that Du, Tao & Martinez saw most often ("Compound facial expressions of emotion", PNAS 111(15),
# 2014, table 1).
PROTOTYPES: dict[str, tuple[dict[int, float], ...]] = {
    "angry": (
        {4: 1.1, 5: 0.6, 7: 0.7, 17: 0.4, 23: 0.6, 24: 0.7},
        {4: 1.0, 5: 0.6, 7: 0.6, 10: 0.7, 16: 0.7, 23: 0.3, 25: 1.0, 26: 0.5},
        {4: 1.0, 7: 0.8, 9: 0.3, 10: 0.8, 16: 0.8, 20: 0.4, 25: 1.0, 27: 0.6},
    ),
    "disgust": (
        {4: 0.6, 6: 0.4, 7: 0.6, 9: 1.0, 10: 0.7, 15: 0.4, 17: 0.8},
        {4: 0.6, 6: 0.4, 7: 0.7, 9: 1.0, 10: 1.0, 16: 0.4, 25: 0.9},
    ),
    "fear": (
        {1: 1.0, 2: 0.5, 4: 0.5, 5: 0.9, 20: 1.0, 25: 1.0, 26: 0.5},
        {1: 1.0, 2: 0.6, 4: 0.5, 5: 1.0, 16: 0.5, 20: 1.0, 25: 1.0, 26: 0.9},
    ),
    "happy": (
        {6: 0.8, 12: 1.0, 25: 1.0, 26: 0.3},
        {6: 0.9, 12: 1.0, 25: 1.0, 26: 0.8},
        {6: 0.6, 12: 0.9},
    ),
    "sad": (
        {1: 1.0, 4: 0.4, 15: 1.0, 17: 0.5, 43: 0.15},
        {1: 1.0, 4: 0.4, 11: 0.4, 15: 0.9, 43: 0.3},
        {1: 1.0, 4: 0.5, 6: 0.6, 7: 0.5, 11: 0.6, 15: 1.0, 17: 0.6, 20: 0.4, 25: 0.7},
    ),
    "surprise": (
        {1: 1.0, 2: 1.0, 5: 0.8, 25: 1.0, 26: 1.0},
        {1: 1.0, 2: 1.0, 5: 1.0, 25: 1.0, 27: 1.0},
    ),
    "neutral": ({},),
}


@dataclass
class Measures:
    """What the action units move, as offsets from the face at rest; lengths in half face widths, folds in 0..1."""

    brow_inner: float = 0  # up
    brow_outer: float = 0  # up
    brow_in: float = 0  # towards the nose
    forehead_lines: float = 0
    frown_lines: float = 0
    lid_upper: float = 0  # up
    lid_lower: float = 0  # up
    lids_shut: float = 0  # 0..1: of the opening
    cheek: float = 0  # 0..1: raised and rounded
    nose_wrinkle: float = 0
    nasolabial: float = 0
    lip_upper: float = 0  # up, at the middle
    lip_lower: float = 0  # down, at the middle
    lips_part: float = 0  # gap
    lip_thickness: float = 0  # relative to that at rest
    teeth: float = 0  # how far the upper teeth show in an open mouth
    corner_out: float = 0
    corner_up: float = 0
    jaw: float = 0  # down
    chin: float = 0  # 0..1: pushed up and dimpled


# What each unit at full intensity moves. The muscles and directions are the FACS manual's.
ACTION_UNITS: dict[int, dict[str, float]] = {
    1: {"brow_inner": 0.21, "forehead_lines": 0.6},  # inner brow raiser
    2: {"brow_outer": 0.17, "brow_inner": 0.03, "forehead_lines": 0.5},  # outer brow raiser
    4: {"brow_inner": -0.15, "brow_outer": -0.05, "brow_in": 0.09, "frown_lines": 1.2, "lid_upper": -0.015},
    5: {"lid_upper": 0.08},  # upper lid raiser
    6: {"cheek": 0.5, "lid_lower": 0.04, "brow_outer": -0.02},  # cheek raiser
    7: {"lid_lower": 0.035, "lid_upper": -0.025},  # lid tightener
    9: {"nose_wrinkle": 1, "brow_inner": -0.08, "nasolabial": 0.5, "lip_upper": 0.05, "lid_lower": 0.02, "cheek": 0.4},
    10: {"lip_upper": 0.09, "nasolabial": 0.7, "teeth": 0.08},  # upper lip raiser
    11: {"nasolabial": 0.8},  # nasolabial deepener
    12: {"corner_out": 0.15, "corner_up": 0.14, "nasolabial": 0.8, "cheek": 0.5, "lip_thickness": -0.25, "teeth": 0.1},
    15: {"corner_up": -0.13, "nasolabial": 0.2},  # lip corner depressor
    16: {"lip_lower": 0.08},  # lower lip depressor
    17: {"chin": 1, "lip_lower": -0.05, "lip_upper": 0.04},  # chin raiser
    20: {"corner_out": 0.13, "corner_up": -0.04, "lip_thickness": -0.2, "teeth": 0.05},  # lip stretcher
    23: {"corner_out": -0.05, "lip_thickness": -0.35},  # lip tightener
    24: {"corner_out": -0.03, "lip_thickness": -0.5},  # lip pressor
    25: {"lips_part": 0.09},  # lips part
    26: {"jaw": 0.2, "corner_out": -0.03},  # jaw drop
    27: {"jaw": 0.48, "corner_out": -0.06},  # mouth stretch
    43: {"lids_shut": 1},  # eyes closed
}


def measures(units: dict[int, float]) -> Measures:
    """Add up what the action units, {number: intensity}, move."""
    moved = Measures()
    for unit, intensity in units.items():
        for name, distance in ACTION_UNITS[unit].items():
            setattr(moved, name, getattr(moved, name) + intensity * distance)
    return moved


def draw_units(label: str, rng: np.random.Generator) -> dict[int, float]:
    """Draw action units for an expression: one of its variants, stronger or weaker, on a face never quite at rest."""
    variants = PROTOTYPES[label]
    variant = variants[rng.integers(len(variants))]
    strength = rng.uniform(0.85, 1.3)
    units = {unit: float(intensity * strength * rng.uniform(0.8, 1.15)) for unit, intensity in variant.items()}
    for unit in (1, 2, 4, 5, 12, 43):
        units[unit] = units.get(unit, 0) + float(rng.uniform(0, 0.1))
    return units

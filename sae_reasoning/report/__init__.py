"""The verdict on each move, and its calibration."""

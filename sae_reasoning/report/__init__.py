"""The verdict on each behaviour, and its calibration."""

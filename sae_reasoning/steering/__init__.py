"""Edits of the residual stream, their noise, controls and effects."""

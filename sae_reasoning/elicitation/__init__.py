"""Cheap interventions that may bring out of a base what RL brought out, and what they cost."""

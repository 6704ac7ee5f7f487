"""Trainings that bring models, the rollout engine and a domain together."""

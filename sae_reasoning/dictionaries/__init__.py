"""Dictionaries of activations: made, measured by the transfer gate, and their latents scaled."""

"""Traces: annotation, and alignment of spans with tokens."""

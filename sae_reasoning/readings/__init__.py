"""What readers make of text: passes over stored activations, and trainings that are controls."""

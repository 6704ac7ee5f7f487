"""The pages on which people review verdicts and latents: what is read, worked out and written."""

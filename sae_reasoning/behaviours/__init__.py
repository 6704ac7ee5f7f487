"""How latents track behaviours."""

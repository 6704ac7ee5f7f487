"""When and how: what two models do with the same opportunities, without any latent."""

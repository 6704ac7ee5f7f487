"""Small models whose answer is known, and the world they live in."""

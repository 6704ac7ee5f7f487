"""Small models whose answer is known: how they are made, measured and described."""

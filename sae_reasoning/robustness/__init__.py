"""Whether a shortlisted latent knows the behaviour, or words and places that go with it."""

"""Our speed against the peers', on models made on the spot."""

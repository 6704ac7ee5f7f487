"""The search world: paths in a small directed graph, told in words and checked by program."""

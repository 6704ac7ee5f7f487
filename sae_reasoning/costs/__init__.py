"""What a run will take, from its config: texts, then tokens, disk, FLOPs and hours."""

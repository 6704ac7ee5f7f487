"""What touches the outside: one file or folder per library."""

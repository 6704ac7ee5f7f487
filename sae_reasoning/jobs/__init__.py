"""One short function per stage; jobs never import each other."""

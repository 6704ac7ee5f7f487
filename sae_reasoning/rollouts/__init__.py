"""How models write: one engine for every stage, named noise, and parts that survive a kill."""

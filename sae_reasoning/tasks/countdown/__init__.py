"""Countdown with three small numbers, told in plain English and judged by program."""

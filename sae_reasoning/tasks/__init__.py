"""What the general rooms must know of a kind of text: problems, behaviours, grades and judges."""

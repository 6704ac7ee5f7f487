"""Natural text: sentences, cue words, a language model's annotations, answers and their grades."""

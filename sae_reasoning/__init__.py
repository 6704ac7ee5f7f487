"""Did RL create a reasoning behaviour, or teach the model when to use it?"""

__version__ = "0.1.0"

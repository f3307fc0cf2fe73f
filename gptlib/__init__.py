"""The thin library behind the interactive book *GPT, block by block*.

Import the part you need, for example ``from gptlib import tokenizer``. Importing the package
itself loads nothing heavy.
"""

__version__ = "1.0.0"

"""The words of the tiny tokenizer, one token each."""

WORDS = "the a cat dog sits on mat runs Paris France capital of is in red blue teddy bear animal house".split()

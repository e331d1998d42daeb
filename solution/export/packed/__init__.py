"""One file that holds a checkpoint in as few bytes as are exact: codecs and grid make tensors into bytes, coding
compresses them, container frames them, packed writes and reads the whole.
"""

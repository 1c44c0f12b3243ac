"""How large a vocabulary may be."""

MIN_VOCAB_SIZE = 257  # every byte, and BOS
MAX_VOCAB_SIZE = 1 << 16  # a token fits in 16 bits on disk

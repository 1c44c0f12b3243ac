"""Text in, batches out: sources, tokenizer, shards on disk, packing, prefetching."""

"""Parts of networks: heads, momentum copies, memory banks, clustering, BatchNorm, precision, distributed training."""

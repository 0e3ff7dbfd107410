"""Networks: heads, momentum copies, memories, clusters, BatchNorm, precision and several processes."""

"""How numbers are stored and multiplied: the plan, the quantized layers, the kernels."""

"""vqtool: codebook-dynamics analysis and diagnostics for vector-quantized models."""

__version__ = "0.1.0"

"""The instrument: attaches to any vector-quantized model, or a model over its codes, and records what the codes do.

Three lines, and the training loop stays as it is:

    monitor = CodebookMonitor(model, optimizer, [TraceSink("runs/mine")], every=100)
    ...  # train as before
    monitor.close()

What it saw, afterwards and elsewhere:

    trace = CodebookTrace.load("runs/mine/trace/quantize")  # trace.hits (records, codes), trace.norm, ...
    stats.perplexity(trace.hits)

- ``CodebookMonitor``, ``TokenMonitor``: the instrument of a model with a codebook, and of a model over its codes.
- ``LightningMonitor``, ``TransformersMonitor``: the instrument as a callback of those trainers.
- ``TraceSink``, ``TensorBoardSink``, ``TokenBoardSink``, ``LogSink``, or any ``Sink``: where records go.
- ``CodebookTrace``, ``TokenTrace``, ``read_table``, ``read_snapshot``: what a run has left, with time in front.
- ``measure_codebooks``: the codebooks of a trained model over a data set, without an optimizer.
- ``measure_tokens``, ``TokenLayout``, ``read_tokens``: the same of tokens in a file, without the model.
- ``stats``: code usage with intervals, perplexity, total variation and their like, on NumPy arrays.
- ``read_life_histories``: when each code of a run was born, died, came back and was reset, and how long it lived.
- ``find_codebooks``: what of a model would be watched, and what not; ``Reader``: how a quantizer of your own is read.
- ``PROBES``, ``Probe``, ``CodebookReading``: how the others are recognised and read.
- ``RunDirectory``, ``find_runs``, ``Finding``: what lies in a run's folder.

Names are imported when they are first used: who reads a trace does not wait for torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

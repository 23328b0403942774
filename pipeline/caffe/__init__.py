"""A Caffe 1.0 engine on PyTorch: reads, trains and writes Caffe's nets. Knows nothing of faces."""

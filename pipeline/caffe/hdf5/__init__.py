"""HDF5 files as Caffe writes and reads them."""

"""A static page that finds and reads faces in the visitor's browser, with ONNX Runtime Web."""

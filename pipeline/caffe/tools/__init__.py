"""Caffe's commands, a module each: its first line is its help, add_arguments() its flags, run() what it does."""

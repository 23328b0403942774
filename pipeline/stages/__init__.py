"""The commands: one module, one command, one rule of the Snakefile."""

"""The command line: one module per family of commands. Thin: it parses, calls and prints."""

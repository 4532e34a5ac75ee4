"""RESPAN's orchestrator: command line, experiment folders, flows, ingest, export, report."""

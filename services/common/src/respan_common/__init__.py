"""What every process of RESPAN shares: geometry, parameters, the store, the serving runtime."""

__version__ = "0.1.0"

"""Run the probe's server, as a service's own `__main__` does."""

if __name__ == "__main__":
    from probe_server import main

    main()

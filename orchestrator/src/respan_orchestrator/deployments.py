"""Offer the flows to Prefect, so that its page starts them from a form, until it is stopped."""

from __future__ import annotations

from typing import Any

from prefect import serve

from respan_orchestrator.flows import analyze, synthesize, train_nnunet


def main() -> None:
    """Serve every flow as a deployment of its own name."""
    deployments: list[Any] = [
        flow.to_deployment(name=flow.name) for flow in (analyze, train_nnunet, synthesize)
    ]
    serve(*deployments)


if __name__ == "__main__":
    main()

"""A whole run, traced: what a collector gets of it."""

from __future__ import annotations

import pytest
from tests.e2e.command_line import CommandLine
from tests.integration.collector import collecting

pytestmark = pytest.mark.slow

STAGES = ("ingest", "segmentation", "quantification", "export")


def test_every_image_of_a_run_has_one_trace_across_all_services(
    respan, model, make_experiment, tmp_path
):
    experiment = make_experiment(tmp_path / "MyExperiment")
    with collecting() as collector:
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        answer = CommandLine(respan.environment | told)("run", experiment, "--model", model)
    assert answer.code == 0, answer.stderr
    images = [span for span in collector.spans if span.name == "image"]
    assert {span.attributes["respan.image"] for span in images} == {"cell1", "cell2"}
    assert len({span.trace for span in images}) == 2
    assert len({span.attributes["respan.run"] for span in images}) == 1
    for image in images:
        inside = [span for span in collector.spans if span.parent == image.id]
        assert [span.name for span in sorted(inside, key=lambda s: STAGES.index(s.name))] == [
            *STAGES
        ]
        stages = {span.id: span.name for span in inside}
        served = {
            span.process: stages[span.parent] for span in collector.spans if span.parent in stages
        }
        assert served == {
            "respan-segmentation": "segmentation",
            "respan-quantification": "quantification",
        }
        assert {s.trace for s in collector.spans if s.parent in {image.id, *stages}} == {
            image.trace
        }

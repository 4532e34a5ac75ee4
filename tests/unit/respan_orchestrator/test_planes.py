import pytest

from respan_orchestrator.planes import slab_depth


@pytest.mark.parametrize(
    ("width", "depth"), [(256, 64), (1024, 64), (2**11, 32), (2**13, 2), (2**15, 1)]
)
def test_whole_chunks_are_read_where_memory_allows(width, depth):
    assert slab_depth((500, width, width), 2) == depth

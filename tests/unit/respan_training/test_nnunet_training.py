import pytest

from respan_training.nnunet_training import Epoch, _ahead


def test_items_prepared_ahead_keep_their_order_and_end():
    assert list(_ahead(x for x in range(20))) == list(range(20))


def test_an_error_while_preparing_reaches_the_one_who_waits():
    def broken():
        yield 1
        raise ValueError("torn file")

    stream = _ahead(broken())
    assert next(stream) == 1
    with pytest.raises(ValueError, match="torn file"):
        next(stream)


def test_leaving_early_ends_the_thread():
    stream = _ahead(x for x in range(1000))
    next(stream)
    stream.close()  # joins it


def test_classes_that_did_not_occur_do_not_count():
    assert Epoch(1, 0.1, [0.8, None, 0.6], 1, 0).mean_dice == 0.7
    assert Epoch(1, 0.1, [None], 1, 0).mean_dice == 0

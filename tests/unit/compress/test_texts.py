"""Windows of tokens: both sides apart, the same every time, and enough of them or an error."""

from pathlib import Path

import pytest

from agentlab.compress.texts import check_enough, pieces, windows
from agentlab.errors import DataError, MissingFileError


class Letters:
    """A tokenizer of single characters; it begins a text with token 1."""

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [1, *map(ord, text)] if add_special_tokens else list(map(ord, text))}


def test_no_piece_of_text_is_on_both_sides() -> None:
    parts = {name: name[0] * 50 for name in ("a1", "b2", "c3", "d4", "e5", "f6", "g7", "h8")}
    split = windows(Letters(), parts, "letters", (5, 3), 20)
    seen = [{token for window in side for token in window[1:]} - {10} for side in (split.calibration, split.held_out)]
    assert all(seen)
    assert not seen[0] & seen[1]
    assert {len(window) for window in (*split.calibration, *split.held_out)} == {20}
    assert {window[0] for window in split.calibration} == {1}
    assert split == windows(Letters(), dict(reversed(parts.items())), "letters", (5, 3), 20)


def test_windows_are_spread_over_all_of_the_text() -> None:
    parts = {str(n): f"{n:04d}" for n in range(300)}
    all_of_it = windows(Letters(), parts, "numbers", (90, 4), 11).calibration
    few = windows(Letters(), parts, "numbers", (3, 4), 11).calibration
    indices = [all_of_it.index(window) for window in few]
    assert indices[0] == 0
    assert indices[2] - indices[1] > 20


def test_the_winner_is_confirmed_on_windows_that_no_choice_saw() -> None:
    parts = {str(n): f"{n:05d}" for n in range(4000)}
    splits = [windows(Letters(), parts, "numbers", (9, 8), 11, seed) for seed in range(5)]
    assert len({split.held_out for split in splits}) == 1  # what earlier runs have measured stays of use
    assert len({split.confirm for split in splits}) == len({split.choose for split in splits}) == 5
    chosen = {window for split in splits for window in split.choose}
    assert not chosen & {window for split in splits for window in split.confirm}  # nor by a choice of another seed
    for split in splits:
        assert split.choose[:8] == split.held_out
        assert (len(set(split.choose)), len(set(split.confirm))) == (64, 64)


def test_what_is_left_of_a_short_text_is_shared_and_may_be_nothing() -> None:
    parts = {str(n): f"{n:05d}" for n in range(300)}
    short = windows(Letters(), parts, "numbers", (9, 40), 11)
    assert 40 < len(short.choose) < 64
    assert 0 < len(short.confirm) < 64
    repeated = windows(Letters(), {str(n): "ab" * 20 for n in range(90)}, "one line", (9, 8), 11)
    assert (repeated.choose, repeated.confirm) == (repeated.held_out, ())  # equal windows are one


def test_too_little_text_is_named_with_what_would_do() -> None:
    for refuse in (windows, check_enough):
        with pytest.raises(DataError, match=r"letters is too short: it yields .* of 100"):
            refuse(Letters(), {"a": "aaa", "b": "bbb"}, "letters", (100, 100), 10)


def test_whether_there_is_enough_text_is_known_from_its_beginning() -> None:
    read: list[int] = []

    class Counting(Letters):
        def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
            read.append(len(text))
            return super().__call__(text, add_special_tokens)

    parts = {str(n): f"{n:04d}" * 500 for n in range(60)}
    check_enough(Counting(), parts, "numbers", (9, 3), 11)
    assert max(read) <= 9 * 10 * 8
    with pytest.raises(DataError, match="0 of 9 windows"):
        check_enough(Counting(), {"0": "one line " * 10_000}, "line", (9, 3), 11)
    assert max(read) <= 9 * 10 * 8


def test_text_with_fewer_tokens_at_its_beginning_is_read_whole() -> None:
    class Blanks(Letters):
        def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
            return super().__call__(text.replace(" ", ""), add_special_tokens)

    parts = {f"{n}": " " * 500 + "abc" * 20 for n in range(20)}
    check_enough(Blanks(), parts, "blanks", (9, 3), 11)
    windows(Blanks(), parts, "blanks", (9, 3), 11)


def test_a_file_has_paragraphs(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("one\n\ntwo\nlines\n\n\n  \n\nthree")
    assert list(pieces(file)) == ["one", "two\nlines", "three"]
    file.write_bytes(b"one\r\n\r\ntwo\r\nlines")
    assert list(pieces(file)) == ["one", "two\nlines"]
    file.write_text(" \n\n ")
    with pytest.raises(DataError, match="empty"):
        pieces(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        pieces(file)
    with pytest.raises(MissingFileError):
        pieces(tmp_path / "absent.txt")

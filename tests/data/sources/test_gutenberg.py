"""Books from Project Gutenberg."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlx_autoresearch.data.sources import Gutenberg
from mlx_autoresearch.data.sources.gutenberg import strip_licence
from mlx_autoresearch.errors import UserError
from tests.support.http_server import Reply, Server
from tests.support.sources import both, everything

MODERN = """\ufeffThe Project Gutenberg eBook of A Book\r
\r
This ebook is for the use of anyone anywhere.\r
\r
*** START OF THE PROJECT GUTENBERG EBOOK A BOOK ***\r
\r
Produced by Somebody and\r
the Online Team\r
\r
CHAPTER I\r
\r
It began.\r
\r
*** END OF THE PROJECT GUTENBERG EBOOK A BOOK ***\r
\r
START: FULL LICENSE\r
"""
BOOK = "CHAPTER I\n\nIt began.\n"
SMALL_PRINT = (
    "**The Project Gutenberg Etext of A Book**\n\nLegal\n"
    "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\n"
)


class TestGutenberg:
    @pytest.mark.parametrize(
        "text",
        [
            MODERN.removeprefix("\ufeff").replace("\r", ""),
            f"*** START OF THIS PROJECT GUTENBERG EBOOK A BOOK ***\n{BOOK}\nEnd of Project Gutenberg's A Book, by X\n\n"
            "*** END OF THIS PROJECT GUTENBERG EBOOK A BOOK ***\nLicense",
            f"***START OF THE PROJECT GUTENBERG EBOOK A BOOK***\n\n\nE-text prepared by X\n\n\n{BOOK}\n"
            "***END OF THE PROJECT GUTENBERG EBOOK A BOOK***\n",
            f"*** START OF THE PROJECT GUTENBERG EBOOK A VERY LONG\nTITLE INDEED ***\n{BOOK}\n"
            "*** END OF THE PROJECT GUTENBERG EBOOK A VERY LONG\nTITLE INDEED ***\n",
            f"*** START OF THE PROJECT GUTENBERG EBOOK WITHOUT STARS\n\n{BOOK}*** END OF THE PROJECT GUTENBERG EBOOK\n",
            f"{SMALL_PRINT}{BOOK}\n\nEnd of The Project Gutenberg Etext of A Book\n",
            f"{SMALL_PRINT}{BOOK}\nEnd of this Project Gutenberg Etext of A Book\n",
            f"*** START OF THE PROJECT GUTENBERG EBOOK A BOOK ***\n\n{SMALL_PRINT}{BOOK}\n"
            "*** END OF THE PROJECT GUTENBERG EBOOK A BOOK ***\n",
            f"Header\n*END THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*\n{BOOK}\nEnd of the Project Gutenberg EBook of X",
        ],
    )
    def test_headers_and_licences_of_every_period_are_stripped(self, text: str) -> None:
        assert strip_licence(text) == BOOK

    def test_stars_within_a_book_are_left_alone(self) -> None:
        book = "One.\n\n***\n\nTwo.\n\n* * * START again ***\n\nEnd of Part One\n\nThree.\n"
        text = f"*** START OF THE PROJECT GUTENBERG EBOOK X\n\n{book}\n*** END OF THE PROJECT GUTENBERG EBOOK X ***"
        assert strip_licence(text) == book

    def test_a_collection_keeps_all_its_parts(self) -> None:
        part = "Some text.\n" * 100
        text = f"{SMALL_PRINT}{part}End of Project Gutenberg's Part One\n{part}End of Project Gutenberg's Part Two\n"
        assert strip_licence(text).count(part) == 2

    @pytest.mark.parametrize("above", ["", SMALL_PRINT, "*** START OF THE PROJECT GUTENBERG EBOOK A BOOK ***\n\n"])
    @pytest.mark.parametrize(
        "last", ["*END THE SMALL PRINT!", "*END*THE SMALL PRINT! FOR ETEXTS*Ver.04.29.93*END*\n\n"]
    )
    def test_the_small_print_may_stand_below_the_book(self, above: str, last: str) -> None:
        """Its last line is then the file's last: what follows it, nothing, used to be taken for the book."""
        book = "CHAPTER I\n\n" + "It began.\n" * 40
        text = f"{above}{book}\n***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\nLegal\n{last}"
        assert strip_licence(text) == book

    def test_a_marker_counts_where_it_can_stand(self) -> None:
        book = "It began.\n" * 40
        quoted = "*** END OF THE PROJECT GUTENBERG EBOOK ***\nstands at the end.\n"
        modern = f"*** START OF THE PROJECT GUTENBERG EBOOK X ***\n{book}*** END OF THE PROJECT GUTENBERG EBOOK X ***\n"
        assert strip_licence(f"Header\n{quoted}{modern}") == book
        assert strip_licence(f"{book}*** START OF THE PROJECT GUTENBERG EBOOK X ***\n").startswith(book)

    def test_a_book_of_which_nothing_is_left_is_named(self, tmp_path: Path) -> None:
        empty = MODERN.replace("CHAPTER I\r\n\r\nIt began.\r\n", "")
        for book, body in ((1, MODERN), (2, empty), (3, MODERN)):
            path = tmp_path / "gutenberg" / f"pg{book}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(body)
        with pytest.raises(UserError, match=r"pg2\.txt: nothing is left of this book"):
            everything(Gutenberg(books=[1, 2, 3]), tmp_path)

    def test_books_are_fetched_once_and_split_by_book(self, server: Server, tmp_path: Path) -> None:
        for book in range(1, 7):
            body = MODERN.replace("It began.", f"Book {book}. " * 500)
            server.serve(f"/{book}/pg{book}.txt", Reply(body.encode(), headers={"Content-Type": "text/plain"}))
        source = Gutenberg(books=[3, 1, 2, 6, 5, 4, 1], base_url=server.url)
        source.fetch(tmp_path)
        source.fetch(tmp_path)
        assert len(server.requests) == len(source.files(tmp_path)) == 6
        train, val = ({*re.findall(r"Book (\d)", "".join(side))} for side in both(source, tmp_path))
        assert train | val == set("123456")
        assert not train & val
        text = "".join(everything(source, tmp_path))
        assert not re.search("gutenberg|license|produced", text, re.IGNORECASE)

    def test_of_a_single_book_the_tail_is_held_out(self, server: Server, tmp_path: Path) -> None:
        server.serve("/9/pg9.txt", Reply(MODERN.replace("It began.", "So it went.\r\n\r\n" * 1000).encode()))
        source = Gutenberg(books=[9], base_url=server.url)
        source.fetch(tmp_path)
        train, val = both(source, tmp_path)
        assert len(val) == 1
        assert len(train) > 8
        assert train[0].startswith("CHAPTER I")

    def test_an_error_page_is_no_book(self, server: Server, tmp_path: Path) -> None:
        server.serve("/9/pg9.txt", Reply(b"<!DOCTYPE html>\nProject Gutenberg is busy"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("threading.Event.wait", lambda *_: True)
            with pytest.raises(UserError, match="no book of Project Gutenberg"):
                Gutenberg(books=[9], base_url=server.url).fetch(tmp_path)

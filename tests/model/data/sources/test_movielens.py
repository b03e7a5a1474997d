"""The editions of MovieLens with their separators and encodings."""

from pathlib import Path

import pytest

from model.errors import InputError

from .source_reading import items_of, log_of, opened, put

FILMS = {
    "1": {
        "item_id": "1", "title": "Les Misérables (1995)", "description": "", "categories": ["Drama", "Musical"],
        "images": [], "year": 1995,
    },
    "2": {
        "item_id": "2", "title": 'Heat: "The" Film', "description": "", "categories": [], "images": [],
    },
}  # fmt: skip

LOG = [("7", "1", 5.0, 978300760.0), ("8", "2", 3.0, 978302109.0)]


def test_100k_has_flags_and_is_latin_1(tmp_path: Path) -> None:
    def flags(*on: int) -> str:
        return "|".join("1" if i in on else "0" for i in range(19))

    put(
        tmp_path / "u.item",
        f"1|Les Misérables (1995)|01-Jan-1995||http://x/?M(1995)|{flags(8, 12)}\n"
        f'2|Heat: "The" Film||||{flags(0)}\n',
        "latin-1",
    )
    put(tmp_path / "u.data", "7\t1\t5\t978300760\n8\t2\t3\t978302109\n")
    put(tmp_path / "u1.base", "9\t1\t5\t978300760\n")
    source = opened("movielens", tmp_path)
    assert items_of(source) == FILMS
    assert log_of(source) == LOG


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_1m_and_10m_separate_by_two_colons(encoding: str, tmp_path: Path) -> None:
    put(
        tmp_path / "movies.dat",
        '1::Les Misérables (1995)::Drama|Musical\n2::Heat: "The" Film::(no genres listed)\n',
        encoding,
    )
    put(tmp_path / "ratings.dat", "7::1::5::978300760\n8::2::3::978302109\n")
    source = opened("movielens", tmp_path)
    assert items_of(source) == FILMS
    assert log_of(source) == LOG


def test_later_editions_are_csv(tmp_path: Path) -> None:
    put(
        tmp_path / "ml-latest/movies.csv",
        'movieId,title,genres\n1,Les Misérables (1995),Drama|Musical\n2,"Heat: ""The"" Film",(no genres listed)\n',
    )
    put(
        tmp_path / "ml-latest/ratings.csv.gz",
        "userId,movieId,rating,timestamp\n7,1,5.0,978300760\n8,2,3.0,978302109\n",
    )
    source = opened("movielens", tmp_path)
    assert items_of(source) == FILMS
    assert log_of(source) == LOG


def test_years_of_series_are_the_first(tmp_path: Path) -> None:
    put(
        tmp_path / "movies.csv",
        "movieId,title,genres\n1,Show (2001-2005),Drama\n2,Show (2003\u2013 ),Drama\n3,1984,Drama\n",
    )
    put(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n7,1,5.0,978300760\n")
    items = items_of(opened("movielens", tmp_path))
    assert [items[key].get("year") for key in ("1", "2", "3")] == [2001, 2003, None]


def test_two_editions_in_a_folder_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        put(tmp_path / name / "movies.csv", "movieId,title,genres\n1,Film,Drama\n")
    with pytest.raises(
        InputError, match=r"a/movies\.csv and b/movies\.csv, which may be of different data sets"
    ):
        opened("movielens", tmp_path)


def test_two_editions_in_one_folder_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "ml-1m/movies.dat", "1::A (1990)::Drama\n")
    put(tmp_path / "ml-100k/u.item", "1|A (1990)|\n")
    with pytest.raises(
        InputError, match=r"contains ml-1m/movies\.dat and ml-100k/u\.item, which may be of different"
    ):
        opened("movielens", tmp_path)

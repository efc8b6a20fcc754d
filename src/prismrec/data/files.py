"""The files of a table, found before any of them is opened.

Takes the path of a file, a folder or a glob; gives the files by rising name. What is no file, such as a pipe, which
would be waited for, or a link to nothing, is refused by its name.
"""

import re
from pathlib import Path

from prismrec.errors import DataError, listed_names

_NOT_UTF8 = re.compile("[\ud800-\udfff]")  # what Python makes of other bytes in the name of a file


def find_files(path: Path) -> tuple[Path, ...]:
    """The Parquet or CSV files of a folder or a glob by rising name, or the one that is named.

    Raises:
        DataError: there are none, or of both kinds.
    """
    if _is_folder(path):
        files = sorted(file for file in path.rglob("*") if file.suffix in (".parquet", ".csv") and not file.is_dir())
    elif not path.is_file() and any(character in path.name for character in "*?["):
        files = sorted(path.parent.glob(path.name))
    else:
        files = [path]
    for file in files:
        if not file.is_file():
            what = "something else" if file.exists() else "nothing"
            raise DataError(f"{file}: expected a Parquet or CSV file, found {what} there")
        if _NOT_UTF8.search(str(file)):
            raise DataError(f"{file}: expected a name in UTF-8, found other bytes; rename the file")
    if not files:
        raise DataError(f"{path}: expected Parquet or CSV files, found none")
    kinds = {file.suffix for file in files}
    if not kinds <= {".parquet", ".csv"} or len(kinds) > 1:
        raise DataError(
            f"{path}: expected files that end in .parquet, or in .csv, found {', '.join(sorted(kinds)) or 'no ending'}"
        )
    return tuple(files)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise DataError(f"{listed_names([path])}: could not be read ({error.strerror})") from error

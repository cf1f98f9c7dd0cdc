"""Where Ringtail is meant to answer otherwise than Apache Kafka, and why. A row that no answer needs any more fails the run."""

import fnmatch

# (case/level, label, path, reason); the first three are patterns as a shell has them.
EXPECTED = [
]


def literal(pattern):
    """Paths have indices in brackets, which are no sets of characters here."""
    return pattern.replace("[", "[[]")


def row_of(difference):
    """The index of the row that explains a difference, if any."""
    case, label, path, *_ = difference
    for index, (cases, labels, paths, _) in enumerate(EXPECTED):
        if fnmatch.fnmatchcase(case, cases) and fnmatch.fnmatchcase(label, labels) and fnmatch.fnmatchcase(path, literal(paths)):
            return index
    return None

"""What MovieLens' codes of users stand for, from its README; the simulation uses the same codes."""

from collections.abc import Mapping, Sequence

CODED: Sequence[str] = ("simulated", "movielens-1m")  # the sources whose users have them
AGES: Mapping[object, str] = {
    1: "under 18",
    18: "18-24",
    25: "25-34",
    35: "35-44",
    45: "45-49",
    50: "50-55",
    56: "56 or older",
}
OCCUPATIONS: Mapping[object, str] = {
    0: "other occupation",
    1: "academic or educator",
    2: "artist",
    3: "clerical or admin",
    4: "college or grad student",
    5: "customer service",
    6: "doctor or health care",
    7: "executive or manager",
    8: "farmer",
    9: "homemaker",
    10: "K-12 student",
    11: "lawyer",
    12: "programmer",
    13: "retired",
    14: "sales or marketing",
    15: "scientist",
    16: "self-employed",
    17: "technician or engineer",
    18: "tradesman or craftsman",
    19: "unemployed",
    20: "writer",
}
NAMES: Mapping[str, Mapping[object, str]] = {
    "gender": {"F": "woman", "M": "man"},
    "age": AGES,
    "occupation": OCCUPATIONS,
}


def code_name(column: str, value: object) -> str:
    """A value of a column of the users table in words; the value itself where it has none.

    Example:
        >>> code_name("age", 18), code_name("zip_code", "55117")
        ('18-24', '55117')
    """
    return NAMES.get(column, {}).get(value, str(value))

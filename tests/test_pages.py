"""What pages quote of MovieLens 1M is what the committed files hold, to the digits quoted."""

import re
from itertools import product
from pathlib import Path
from statistics import mean, stdev

from pipeline.table1.page import OWN_X
from pipeline.text_files import read_csv, read_json

ROOT = Path(__file__).parents[1]
LABELS = ("age", "age7", "occupation")
BASES = ("exposures", "users")
STARTS = ("random", "mean", "histogram-age", "histogram-occupation", "graph", "ktup", "learned")
AUC = read_json(ROOT / "metrics/movielens/auc.json")
NEW_ITEMS = read_csv(ROOT / "metrics/movielens/new_items.csv")
TABLE1 = read_csv(ROOT / "metrics/table1/table1.csv")
SEEDS = read_csv(ROOT / "metrics/seeds/seeds.csv")


def assert_says(page: str, *texts: str) -> None:
    """Each text, whose figures come from a file, stands in the page."""
    said = (ROOT / page).read_text()
    missing = [text for text in texts if text not in said]
    assert not missing, f"{page} does not say what the committed files do:\n" + "\n".join(missing)


def aucs(row: str, base: str, fields: str, figure: str) -> list[float]:
    """AUC x 100 of a row of Table 1, seed by seed."""
    wanted = (row, base, fields)
    found = [r for r in TABLE1 if (r["row"], r["base"], r["fields"]) == wanted]
    return [100 * float(r[figure]) for r in found]


def quoted(row: str, base: str, fields: str, *figures: str, digits: int = 1) -> str:
    """Mean ± standard deviation over the seeds, of each figure, as cells of a table."""
    values = [aucs(row, base, fields, figure) for figure in figures]
    return " | ".join(f"{mean(v):.{digits}f} ± {stdev(v):.{digits}f}" for v in values)


def single(*values: float) -> str:
    """AUCs x 100, as cells of a table."""
    return " | ".join(f"{100 * value:.1f}" for value in values)


def span(values: list[float]) -> str:
    return f"{min(values):.0f} to {max(values):.0f}"


def over_starts(base: str, fields: str, figure: str) -> list[float]:
    return [mean(aucs(start, base, fields, figure)) for start in STARTS]


def on_labels(row: str, *figures: str) -> list[str]:
    """Means of a row without a base on merged labels."""
    return [f"{mean(aucs(row, '', 'paper', figure)):.1f}" for figure in figures]


def of_the_base(fields: str) -> str:
    """What base `users` adds by age, over all starts."""
    exposures, users = (over_starts(base, fields, "age") for base in BASES)
    return span([u - e for u, e in zip(users, exposures, strict=True)])


def test_the_readme_quotes_table_1() -> None:
    names = {
        ("strict", "exposures"): "user id (strict, the default)",
        ("strict", "users"): "user id",
        ("paper", "exposures"): "four labels, rare codes merged",
        ("paper", "users"): "four labels, rare codes merged",
    }
    assert_says(
        "README.md",
        *(
            f"| {name} | {base} | {row} | "
            f"{quoted(row, base, fields, *LABELS, 'exposure', digits=2)} |"
            for (fields, base), name in names.items()
            for row in ("random", "mean", "learned")
        ),
        f"`users` is worth {of_the_base('strict')} points more than `exposures` with the user id, "
        f"{of_the_base('paper')} with merged labels",
        f"age {quoted('learned', 'exposures', 'paper', 'age')} (paper 80.6), "
        f"occupation {quoted('learned', 'exposures', 'paper', 'occupation')} (66.1)",
        f"a Gaussian has {' and '.join(on_labels('gaussian', 'age', 'occupation'))}, "
        f"isolation forests {on_labels('isolation_forest', 'age')[0]} by age, "
        f"one-class SVMs {on_labels('one_class_svm', 'occupation')[0]} by occupation",
        f"by age ({span(over_starts('users', 'paper', 'age'))}), "
        f"and behind the best of them by occupation "
        f"({span(over_starts('users', 'paper', 'occupation'))})",
        f"ALS leads ({quoted('als', '', 'without x', 'exposure', digits=2)}",
        f"whose x is ALS's ({quoted('wide', 'users', OWN_X, 'exposure', digits=2)}",
        f"on that x ({quoted('logistic_users@wide', '', OWN_X, 'exposure', digits=2)})",
    )


def test_with_base_users_the_ratio_stands_where_the_readme_says() -> None:
    """By held-out exposures, whatever its start: above detectors, below logistic regressions."""
    others = ("gaussian", "maf", "one_class_svm", "ecod", "isolation_forest")
    for fields in ("strict", "paper"):
        ratio = over_starts("users", fields, "exposure")
        assert max(mean(aucs(row, "", fields, "exposure")) for row in others) < min(ratio)
        assert max(ratio) < mean(aucs("logistic_users", "", fields, "exposure"))
    paper, strict = (
        f"{mean(aucs('learned', 'users', fields, 'exposure')):.1f} against "
        f"{mean(aucs('logistic_users', '', fields, 'exposure')):.1f}"
        for fields in ("paper", "strict")
    )
    assert_says("README.md", f"(learned: {paper}; strict {strict})")


def test_with_merged_labels_one_start_gains_more_than_the_spread() -> None:
    """By labels, paired by seed, of the starts of which the README says so."""
    beyond = {}
    for row, base, label in product(("mean", "learned"), BASES, LABELS):
        pairs = zip(
            aucs(row, base, "paper", label), aucs("random", base, "paper", label), strict=True
        )
        gains = [other - random for other, random in pairs]
        if abs(mean(gains)) > stdev(gains):
            beyond[row, base, label] = f"{mean(gains):.1f} ± {stdev(gains):.1f}"
    assert beyond.keys() == {("learned", "users", "age7")}
    found = beyond["learned", "users", "age7"].replace(" 0.", " .")
    assert_says("README.md", f"but for {found} points by age (7) (base `users`, `learned`)")


def test_the_model_card_quotes_table_1_and_the_new_items() -> None:
    new = {row["exposures"]: single(float(row["auc"])) for row in NEW_ITEMS}
    assert_says(
        "docs/model-card.md",
        *(
            " | ".join(quoted("learned", base, "strict", figure, digits=2) for base in BASES)
            + f" | {single(AUC['trivial']['activity'][figure])} |"
            for figure in ("exposure", "age", "occupation")
        ),
        f"trained {new['trained']} ({NEW_ITEMS[0]['tasks']} tasks, one seed) "
        f"| {new['5']} / {new['20']} / {new['100']} |",
    )


def test_yardsticks_quotes_seed_0() -> None:
    age, trivial = AUC["age"], AUC["trivial"]
    supervised = [AUC[label]["supervised"] for label in LABELS]
    assert_says(
        "docs/yardstick.md",
        *(
            f"| {name} | {single(*(trivial[key][figure] for figure in figures))} |"
            for name, key in {"random scores": "random", "user activity": "activity"}.items()
            for figures in (LABELS, ["exposure"])
        ),
        f"| the same, on the label's own half of the tasks | {single(age['own_half'])} |",
        f"over all tasks this run has {single(age['auc'])} |",
        f"base `exposures` | {single(*(AUC[label]['perfect_label'] for label in LABELS))} |",
        f"| `supervised`, x from exposures | {single(*supervised)} |",
        f"ranks the two classes with {single(supervised[0])}.",
        f"({100 * AUC['leak']['age']:.0f} by age for exposures",
        f"In {100 * AUC['occupation']['zero_class']:.0f} % of the tasks",
    )


def test_yardsticks_quotes_table_1() -> None:
    by_age = {
        (fields, base): span(over_starts(base, fields, "age"))
        for fields, base in product(("strict", "paper"), BASES)
    }
    knows = r"^\| knows every label, users base \| (.*? \| .*? \| .*?) \|"
    ceiling = re.search(knows, (ROOT / "metrics/table1/table1.md").read_text(), re.MULTILINE)
    assert ceiling is not None
    held_out = {
        "ours, `wide`": ("wide", "users", OWN_X),
        "logistic regressions on the x of `wide`, base `users`": ("logistic_users@wide", "", OWN_X),
        "logistic regressions on our x, base `users`": ("logistic_users", "", "strict"),
        "ALS": ("als", "", "without x"),
    }
    assert_says(
        "docs/yardstick.md",
        f"reaches {by_age['strict', 'exposures']} by age with base `exposures` "
        f"and {by_age['strict', 'users']} with base `users`",
        f"reaches {by_age['paper', 'exposures']} and {by_age['paper', 'users']}: then x says",
        f"base `exposures` | {quoted('learned', 'exposures', 'strict', *LABELS)} |",
        *(
            f"base `users` | {quoted('learned', 'users', fields, *LABELS)} |"
            for fields in ("strict", "paper")
        ),
        f"| `perfect_label`, base `users` | {ceiling[1]} |",
        f"{of_the_base('strict')} points in our runs with x from exposures "
        f"and {of_the_base('paper')} with merged labels",
        *(
            f"base `{base}`, random / learned | {quoted('random', base, 'strict', 'exposure')} / "
            f"{quoted('learned', base, 'strict', 'exposure')} |"
            for base in BASES
        ),
        *(f"| {name} | {quoted(*cell, 'exposure', digits=2)} |" for name, cell in held_out.items()),
        f"| item-kNN (cosine) | {mean(aucs('item_knn', '', 'without x', 'exposure')):.1f} |",
        f"| EASE | {mean(aucs('ease', '', 'without x', 'exposure')):.2f} |",
    )


def gained(method: str, figure: str) -> str:
    """Least and most over random seed tasks, AUC x 100, of the numbers of seed tasks."""
    rows = [r for r in SEEDS if (r["method"], r["figure"]) == (method, figure)]
    gains = [100 * float(row["gain"]) for row in rows]
    least, most = (f"{gain:+.2f}" for gain in (min(gains), max(gains)))
    return f"{least} to {most}".replace("+0.", "+.").replace("-0.", "-.")


def test_results_quotes_the_gains_of_seed_tasks() -> None:
    beyond = [row for row in SEEDS if abs(float(row["gain"])) > 2 * float(row["noise"])]
    kmeans = [(r["seed_tasks"], r["figure"]) for r in beyond if r["method"] == "kmeans++"]
    assert kmeans == [("100", "exposure")]
    assert len(beyond) == 10
    assert_says(
        "docs/results.md",
        f"age {gained('farthest', 'age')}, 7 ages {gained('farthest', 'age7')}, "
        f"occupation {gained('farthest', 'occupation')}, "
        f"exposures {gained('farthest', 'exposure')}",
        f"by held-out exposures at M0 = 100 alone ({gained('kmeans++', 'exposure')} over the four",
    )

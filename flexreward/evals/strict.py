"""Figures as one would compute them afresh: plain means over every reply of the run, each with its uncertainty.

A name means the same here and in a benchmark's ``published`` figures; where the source counts something else, it has
another name there, and the quirks say what.

Several completions (``pair``, ``best``, ``ranking``):
    ``accuracy``                 pair: the judge's choice of first, second or tie is people's. best: 1/k where k
                                 completions share the top score and a right one is among them
    ``accuracy_without_ties``    pair: rows where people tie left out; a tie of the judge is wrong
    ``accuracy_both``            pair: right in each of the two orders, where both were shown
    ``consistency``              the two orders choose alike, right or wrong
    ``macro_precision``, ``macro_recall``, ``macro_f1``   pair: over the classes that people use; nothing chosen is 0
    ``kappa``, ``base_rate``     pair: Cohen's; the share of people's most frequent class
    ``tie_calibrated_accuracy``, ``tie_calibrated_epsilon``   pair, ranking: Deutsch et al. 2023
    ``auroc``                    pair, best: a completion's score tells people's favourites from the others
    ``levenshtein``              ranking: edits between the two orders over their length; lower is better
    ``kendall``                  ranking: tau-b a row, the mean over rows
    ``concordance``              ranking: pairs that people order, a tie of the judge counting half
    ``ties``                     rows where the judge shares its best score
One completion (``rating``):
    ``pearson``, ``spearman``, ``kendall``, ``mse``, ``rmse``   over rows
    ``system_pearson``, ``system_spearman``, ``system_kendall``, ``system_mse``   over systems' means, where there are some
    ``auroc``                    where people say one of two things
All:
    ``unscored``                 rows without a verdict, of all rows. All figures above leave them out
    ``X_unscored_wrong``         the main figures with unscored rows counted as wrong
    ``X_over_groups``            the plain mean of a main figure over the groups
    ``X/group``                  a main figure in one group

Main figures: ``accuracy`` and ``accuracy_without_ties``; ``pearson``, ``spearman`` and ``mse``; ``levenshtein``.
"""

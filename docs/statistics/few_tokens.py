"""What few tokens do to the figures of a codebook whose usage is known: ``python docs/statistics/few_tokens.py``."""

import numpy as np

from vqtool.diagnostics import stats

K = 16_384
DISTRIBUTIONS = {"even": np.ones(K), "1 / rank": 1 / np.arange(1, K + 1)}

rng = np.random.default_rng(0)
print("use       tokens   used  ceiling  coverage  chao1  perplexity: true  sample  corrected")
for name, weights in DISTRIBUTIONS.items():
    p = weights / weights.sum()
    true = np.exp(-(p * np.log(p)).sum())
    for tokens in (K // 8, K, 4 * K, 16 * K):
        seen = stats.usage(rng.multinomial(tokens, p), f"{tokens:,} tokens")
        print(
            f"{name:<8} {tokens:>7,} {seen.used:>6,.0f} {seen.ceiling:>8,.0f} {stats.percent(seen.coverage):>9}"
            f" {seen.chao1:>6,.0f} {true:>17,.0f} {seen.perplexity:>7,.0f} {seen.corrected:>10,.0f}"
        )

images = rng.choice(K, (500, 256), p=DISTRIBUTIONS["1 / rank"] / DISTRIBUTIONS["1 / rank"].sum())
print(stats.usage_of_images(images, K, "500 images of 256 tokens"))

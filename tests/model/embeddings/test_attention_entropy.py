"""Warnings about attention that selects nothing, and the mean entropy of several checkpoints."""

from model.embeddings.attention_entropy import AttentionEntropy


def test_warns_about_each_modality_above_the_limit() -> None:
    words, patches = AttentionEntropy(text=0.9912, image=1.0).warnings()
    assert words.startswith("The attention over the words is almost uniform: its entropy is 0.9912 of log(")
    assert patches.startswith(
        "The attention over the patches is almost uniform: its entropy is 1.0000 of log("
    )
    assert "another --conditioning, a higher --attention-gain or a lower --beta." in words


def test_no_warning_up_to_the_limit_or_without_tokens() -> None:
    assert AttentionEntropy(text=0.99, image=None).warnings() == []


def test_mean_leaves_out_missing_figures() -> None:
    both = [AttentionEntropy(text=0.5, image=None), AttentionEntropy(text=0.75, image=None)]
    assert AttentionEntropy.mean(both) == AttentionEntropy(text=0.625, image=None)

"""Prose out of wikitext, against text cleaned by hand."""

from __future__ import annotations

import pytest

from curl_rl.text.packages.wikipedia import plain, sentences_of_wikitext, split_sentences


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("'''Bold''' and ''slanted''", "Bold and slanted"),
        ("a [[link]], [[page|another]] and [[nested [[x]]|third]]", "a link, another and third"),
        ("{{box|{{inner|x}}|y}}after", "after"),
        ("before{| class=x\n|-\n| cell\n{| inner |}\n|}after", "beforeafter"),
        ("[[File:a.jpg|thumb|A [[cat]] sleeps]]text", "text"),
        ("[[Category:Cats]][[de:Katze]]text", "text"),
        ("fact&lt;ref name=x&gt;Smith&lt;/ref&gt;.&lt;ref name=x /&gt;", "fact."),
        ("see [http://example.org the site]", "see the site"),
        ("<!-- hidden\nlines -->seen <small>small</small>", "seen small"),
        ("two&amp;nbsp;words", "two words"),
    ],
)
def test_markup_is_removed_and_words_stay(markup: str, text: str) -> None:
    assert plain(markup) == text


def test_only_whole_sentences_of_prose_are_kept() -> None:
    text = """== Heading ==
* A list item is not a sentence.
The first sentence is here. The second, by J. K. Smith of St. Louis, follows it. Broken by {{
Too short.
It has 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13 numbers.
Not ended
"""
    assert sentences_of_wikitext(text) == [
        "The first sentence is here.",
        "The second, by J. K. Smith of St. Louis, follows it.",
    ]


def test_sentences_end_at_a_stop_before_a_capital_and_not_at_abbreviations() -> None:
    text = 'He said "Go." Then he left! Why? Dr. Smith (vs. him) knew. no capital'
    assert split_sentences(text) == ['He said "Go."', "Then he left!", "Why?", "Dr. Smith (vs. him) knew. no capital"]

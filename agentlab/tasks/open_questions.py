"""Questions without one right answer, each with a sound but plain answer that a judge compares others with."""

from agentlab.tasks.items import Level

# level, question, reference answer
QUESTIONS: tuple[tuple[Level, str, str], ...] = (
    (
        1,
        "Explain to a ten-year-old why the sky is blue, in two or three sentences.",
        "Sunlight is a mix of all colours. When it passes through the air, tiny bits of air throw the blue part "
        "around much more than the red part. So blue light comes to your eyes from everywhere in the sky.",
    ),
    (
        1,
        "Why should one save a document before updating the program it was written with? Two sentences.",
        "An update usually closes the program and may fail or restart the computer, so unsaved work can be lost. "
        "Saving first, best with a copy, means that you can go on where you were.",
    ),
    (
        1,
        "Give three practical tips for falling asleep more easily.",
        "Go to bed and get up at the same times every day. Avoid screens, coffee and heavy meals in the hours "
        "before. Keep the bedroom dark, quiet and cool.",
    ),
    (
        1,
        "Write a short, polite message that declines an invitation to a birthday party.",
        "Thank you very much for inviting me to your birthday! Sadly I cannot come that evening. I hope you have "
        "a wonderful party, and I would like to meet you soon to celebrate late.",
    ),
    (
        2,
        "What is the difference between a virus and a bacterium, and why do antibiotics help against only one of them?",
        "A bacterium is a living cell that feeds and divides by itself; a virus is only genetic material in a "
        "shell and needs the cells of its host to multiply. Antibiotics attack parts that bacteria have and our "
        "cells do not, such as their cell wall. Viruses have no such parts, so antibiotics do nothing to them.",
    ),
    (
        2,
        "A friend wants to put all savings into the shares of one company. Name the main argument against it and "
        "a better plan.",
        "If that one company fails, all the savings may be gone, and no extra return is paid for that avoidable "
        "risk. A better plan is to keep some months of expenses in cash and to spread the rest over many "
        "companies and countries, for example with a cheap index fund.",
    ),
    (
        2,
        "Explain what a hash table is and when it is a bad choice.",
        "A hash table stores values under keys: a function turns each key into a position in an array, so "
        "finding, adding and deleting take constant time on average. It is a bad choice if the keys are needed in"
        " order or by range, if the worst case must be bounded, or if memory is very tight.",
    ),
    (
        2,
        "A cyclist and a pedestrian share a narrow path. Suggest three rules that are fair to both.",
        "Cyclists slow down to walking pace when passing and leave an arm's length of room. Pedestrians keep to "
        "one side and do not block the whole width. Whoever comes from behind gives a friendly signal and waits "
        "until it was heard.",
    ),
    (
        3,
        "A small shop loses customers. Its owner blames a new supermarket nearby. Which facts would you gather "
        "before you agree, and how would each change your view?",
        "When the decline began: if before the opening, the supermarket is not its cause. Which goods and hours "
        "lost sales: if those the supermarket does not offer fell as much, something else is wrong. What former "
        "customers say: they may name price, choice or service. How other shops nearby fare: if they do well, the"
        " cause lies in this shop. Without such facts the blame is only a guess.",
    ),
    (
        3,
        "A study finds that people who eat breakfast are slimmer. Explain why this does not prove that breakfast "
        "makes slim, and sketch a study that could tell.",
        "The two groups may differ in other ways: who eats breakfast may also sleep, move and earn differently, "
        "and being slim may itself change habits. A study that could tell would assign volunteers by lot to "
        "eating or skipping breakfast for some months, leave the rest of their lives alone, check that they "
        "comply, and compare the change of weight between the groups as assigned.",
    ),
    (
        3,
        "Two programs update the same bank account at the same time. Describe what can go wrong and two ways to "
        "prevent it, with a drawback of each.",
        "Both may read the same balance, add their own change and write it back, so that the second write erases "
        "the first. A lock lets only one work on the account at a time; it makes others wait and can deadlock "
        "when several locks are taken in different orders. A version check writes only if the balance is "
        "unchanged since it was read and otherwise tries again; under heavy load many tries are wasted.",
    ),
    (
        3,
        "Should a town charge cars for entering its centre? Give the strongest argument on each side and say "
        "which evidence would decide.",
        "For: drivers impose delay, noise and dirty air on others for free, and a price makes those trips pay "
        "that can be moved or dropped. Against: it falls hardest on people with low income who have no other way "
        "to reach work. What would decide: counts of traffic and air quality from comparable towns before and "
        "after, and data on who drives in at which hours, what they earn, and whether buses could carry them.",
    ),
)

"""A voting rule: who spoke first is right."""

from agentlab.answers.votes import vote
from agentlab.debate.rules import VotingRule

FIRST = VotingRule(lambda votes: vote(votes.answers[0][:1]))

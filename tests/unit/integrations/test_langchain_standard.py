"""LangChain's own suite for chat models."""

import pytest

pytest.importorskip("langchain_tests", reason="needs langchain-tests")

from langchain_tests.unit_tests import ChatModelUnitTests

from agentlab.integrations.langchain import AgentlabChatModel


@pytest.mark.usefixtures("workspace")
class TestStandard(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[AgentlabChatModel]:
        return AgentlabChatModel

    @property
    def chat_model_params(self) -> dict:
        return {"config": "scripted"}

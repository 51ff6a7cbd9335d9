"""Templates of prompts and conditions of stages, which may be a stranger's: jinja's immutable sandbox, and a budget."""

from agentlab.pipeline.templates.template import Condition, Template, compile_template, condition

__all__ = ["Condition", "Template", "compile_template", "condition"]

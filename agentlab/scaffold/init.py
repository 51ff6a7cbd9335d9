"""A new workspace: example configs, a first pipeline, the data folders, and what keeps keys and weights out of git."""

from pathlib import Path

from agentlab.commands import COMMANDS
from agentlab.runs.atomic import make_folder, write_text
from agentlab.runs.document import AnswerDocument, Block, Code, Text

DATA_FOLDERS = ("adapters", "models", "runs")

IGNORE_RULES = ("/.env", "/.agentlab/", "/adapters/*", "/models/*", "/runs/*", "!/*/.gitkeep")
_GITIGNORE = (
    "# Anchored on purpose: an unanchored `models/` would ignore folders of that name at every level.\n"
    + "".join(f"{rule}\n" for rule in IGNORE_RULES)
)

ENV_EXAMPLE = """\
# Copy this file to .env and fill in what you use; git ignores .env. Real environment variables take precedence.
# Nothing here is needed for the embedded defaults, and a key alone never changes which model answers.

# Keys, used only by configs that name them (agentlab nas openrouter, or --set llm=openrouter)
# OPENROUTER_API_KEY=        # https://openrouter.ai/keys
# OPENAI_API_KEY=            # https://platform.openai.com/api-keys
# ANTHROPIC_API_KEY=         # https://console.anthropic.com/settings/keys

# Models for configs/llm/openrouter.yaml
# PLANNER_MODEL=anthropic/claude-3.5-sonnet
# EVALUATOR_MODEL=anthropic/claude-3.5-sonnet

# Models for configs/llm/dev.yaml, prod.yaml and critical.yaml
# DEV_MODEL=
# PROD_MODEL=
# PROD_FALLBACK_MODEL=
# CRITICAL_A_MODEL=
# CRITICAL_B_MODEL=
# JUDGE_MODEL=

# Token that clients of `agentlab serve` must send; required if other machines can reach its address
# AGENTLAB_SERVE_TOKEN=

# A local server with an OpenAI-compatible interface, for --set llm=ollama
# OLLAMA_BASE_URL=http://127.0.0.1:11434/v1
# OLLAMA_MODEL=qwen2.5:7b-instruct

# Folder for model files shared by several workspaces
# AGENTLAB_CACHE=~/.cache/agentlab
"""

EXAMPLE = """\
# Your own preset for `agentlab {name}`. Keys not set here come from the shipped `default`.
#
# Launch:   agentlab {name} example
# Keys:     agentlab configs show {name} example     (every value, and where it comes from)
# Presets:  agentlab configs list {name}             (copy this file under a new name)

extends: default

# seed: 1
# llm: none                  # a name from `agentlab configs list llm`, or a mapping with the same keys
"""
MODELS = """\
# Models available to the stages in pipeline.yaml.
#
# Check which are usable:  agentlab pipeline models --models models.yaml --pipeline pipeline.yaml

models_directory: models         # where `file` is looked up; relative to this folder

defaults:                        # for every model; a model's `overrides` and a stage's own keys take precedence
  n_ctx: 2048                    # prompt and answer tokens combined
  temperature: 0                 # 0 always takes the most likely token
  max_tokens: 128                # maximum tokens per answer

models:
  small:
    file: SmolLM2-135M-Instruct.Q4_1.gguf    # get it with `agentlab models pull smollm2-135m`
    quantization: Q4_1                       # checked against the file
    required_for_base: true                  # base mode does not start without it
    overrides: {}                            # for this model only, e.g. n_ctx: 4096

  # larger:
  #   file: Qwen2.5-7B-Instruct-Q4_K_M.gguf
  #   quantization: Q4_K_M
  #   required_for_base: false
  #   overrides: {n_ctx: 8192, n_gpu_layers: -1}
"""

PIPELINE = """\
# Stages that use the models in models.yaml; the last stage's answer is the pipeline's result.
#
# Run:    agentlab pipeline --models models.yaml --pipeline pipeline.yaml --mode base --input "Why is the sky blue?"
# Check:  agentlab pipeline validate --models models.yaml --pipeline pipeline.yaml
# Plan:   add --dry-run                        (order, loads and memory)
# Keys:   agentlab configs schema pipeline     (a JSON schema, for editors)

models_file: models.yaml

base_pipeline:                   # draft -> critique -> final
  stages:
    - id: draft
      type: single
      model: small
      input_from: input          # the run's own input; every first stage uses it
      output_mode: input_plus_answer     # passes on its input and its answer; answer_only: just the answer
      prompt: |-
        {{ input }}

        Answer in two or three sentences.

    - id: critique
      type: single
      model: small
      input_from: draft          # one stage, or a list of them
      prompt: |-
        {{ input }}

        Name the most important mistake or omission of this answer, in one sentence.

    - id: final
      type: single
      model: small
      input_from: [draft, critique]      # each answer is labelled with its stage
      prompt: |-
        {{ input }}

        Write the final answer to the question, in two or three sentences, with the critique in mind.

manual_pipeline:                 # --mode manual: three samples -> vote
  stages:
    - id: ballot
      type: multi
      models: [small]
      samples: 3                 # answers per model, with different seeds
      temperature: 0.8
      max_tokens: 16
      prompt: |-
        {{ input }}

        Answer with one word, "yes" or "no".
      aggregation:               # or concat, judge, synthesis, best_of, first_valid, or a template of your own
        method: vote
        extract:                 # the part of an answer that counts as its vote
          kind: label
          labels: ["yes", "no"]
        ties: first
"""


class InitResult(AnswerDocument):
    """What `init` did; file names are relative to `root`."""

    root: str
    created: list[str]
    kept: list[str]
    missing_ignore_rules: list[str]

    def blocks(self) -> list[Block]:
        blocks: list[Block] = [Code("\n".join(self.created))] if self.created else []
        kept_note = f"; {len(self.kept)} already existed and are unchanged" if self.kept else ""
        blocks.append(Text(f"{len(self.created)} files created in {self.root}{kept_note}."))
        if self.missing_ignore_rules:
            blocks += [Text("Your .gitignore lacks these lines:"), Code("\n".join(self.missing_ignore_rules))]
        return blocks


def init(root: Path) -> InitResult:
    """Make `root` a workspace. A file that exists is never touched.

    Raises:
        StorageError: the folder cannot be made or written to.
    """
    created: list[str] = []
    kept_files: list[str] = []
    for name, text in _files().items():
        path = root / name
        if path.exists() or path.is_symlink():
            kept_files.append(name)
            continue
        make_folder(path.parent)
        write_text(path, text)
        created.append(name)
    return InitResult(root=str(root), created=created, kept=kept_files, missing_ignore_rules=_missing_rules(root))


def _files() -> dict[str, str]:
    """Relative name -> text of everything a workspace starts with.

    The shipped presets are extended and not copied: a copy would hide what a later version brings.
    """
    examples = {f"configs/{name}/example.yaml": EXAMPLE.format(name=name) for name in COMMANDS}
    folders = {f"{name}/.gitkeep": "" for name in DATA_FOLDERS}
    pipeline = {"models.yaml": MODELS, "pipeline.yaml": PIPELINE}
    return {".env.example": ENV_EXAMPLE, ".gitignore": _GITIGNORE, **folders, **examples, **pipeline}


def _missing_rules(root: Path) -> list[str]:
    """The rules that a `.gitignore` of the user's own does not have, so that a key is not committed by accident."""
    path = root / ".gitignore"
    lines = path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else []
    present = {line.strip() for line in lines}
    return [rule for rule in IGNORE_RULES if rule not in present]
